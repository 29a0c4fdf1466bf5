# LibTorch and its fmt as targets: hansa::torch, hansa::fmt. Needs HANSA_LIBTORCH, a folder with include/ and lib/. Used by Hansa's
# own build and, installed, by that of plugins elsewhere. By hand rather than by LibTorch's package config, which adds global
# flags and searches for CUDA and MKL.
if(NOT TARGET hansa::torch)
  add_library(hansa::torch INTERFACE IMPORTED GLOBAL)
  target_include_directories(hansa::torch SYSTEM INTERFACE ${HANSA_LIBTORCH}/include)
  # Its headers then include the operators that they use, one by one, and not all 3000 of them (5 s a file).
  target_compile_definitions(hansa::torch INTERFACE AT_PER_OPERATOR_HEADERS)
  target_link_directories(hansa::torch INTERFACE ${HANSA_LIBTORCH}/lib)
  # A LibTorch with CUDA: nobody calls these by name, and with the program they bring their kernels. What they need of CUDA they
  # find by paths of their own, which the linker does not follow.
  set(hansa_torch_cuda "")
  if(EXISTS ${HANSA_LIBTORCH}/lib/libtorch_cuda.so)
    set(hansa_torch_cuda torch_cuda c10_cuda)
    target_link_options(hansa::torch INTERFACE -Wl,--allow-shlib-undefined)
  endif()
  target_link_libraries(hansa::torch INTERFACE -Wl,--no-as-needed torch torch_cpu ${hansa_torch_cuda} -Wl,--as-needed c10)
  target_link_options(hansa::torch INTERFACE -Wl,-rpath,${HANSA_LIBTORCH}/lib)
  # at::parallel_for stands in a header: compiled without OpenMP it silently does everything on one core. The runtime is the
  # one that LibTorch brings (no second pool of threads), or the system's where it brings none. HANSA_OPENMP=OFF is for
  # clang-tidy, which finds no omp.h for the compiler that it reads along with.
  option(HANSA_OPENMP "at::parallel_for uses several cores" ON)
  if(HANSA_OPENMP)
    target_compile_options(hansa::torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
    target_link_libraries(hansa::torch INTERFACE -l:libgomp.so.1)
  endif()

  # One fmt for the whole program: the one whose headers LibTorch ships, in a folder of its own, because the wheel's include
  # folder also holds other libraries' headers. hansa::formatter (sdk/formatter) is its compiled part.
  add_library(hansa::fmt INTERFACE IMPORTED GLOBAL)
  target_link_libraries(hansa::fmt INTERFACE hansa::formatter)
  if(EXISTS ${HANSA_LIBTORCH}/include/fmt/format.h)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt_only)
    file(CREATE_LINK ${HANSA_LIBTORCH}/include/fmt ${CMAKE_BINARY_DIR}/fmt_only/fmt SYMBOLIC)
    target_include_directories(hansa::fmt SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/fmt_only)
  endif()
endif()

# "2.13.0" of a LibTorch folder, or "".
function(hansa_torch_version folder out)
  set(found "")
  foreach(header torch/headeronly/version.h torch/version.h)
    if(NOT found AND EXISTS ${folder}/include/${header})
      file(STRINGS ${folder}/include/${header} lines REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
      string(REGEX REPLACE "[^0-9;]" "" numbers "${lines}")
      list(JOIN numbers "." found)
    endif()
  endforeach()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()
