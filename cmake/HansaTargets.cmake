# hansa_add_library(box [TORCH] SOURCES … PUBLIC … PRIVATE …): a static library hansa_<box>, included as "<box>/header.hpp". TORCH: most
#   of its files know tensors.
# hansa_add_test(name [TORCH] SOURCES … LIBS …): a Catch2 program, one CTest entry, label "unit".
# hansa_merge(target): its sources are compiled several at once. A file that uses our precompiled headers costs a second or more
#   before its first line (HansaPrecompile.cmake), so few files are what makes a build quick. Names in unnamed namespaces must
#   therefore differ within a target; files with options of their own stay apart.
option(HANSA_WERROR "Warnings are errors" OFF)
option(HANSA_MERGE "Compile several sources of a target at once" ON)

add_library(hansa_warnings INTERFACE)
target_compile_options(hansa_warnings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
  -Wno-unused-parameter -Wno-missing-field-initializers
  # GCC 12 reports impossible copies inside std::string (its bug 105651): shown, not fatal.
  "$<$<BOOL:${HANSA_WERROR}>:-Werror;-Wno-error=restrict>")

# Code that waits for disk, people or other processes: compiled for a quick build.
set(HANSA_COLD $<$<CONFIG:Release>:-O1>)
# Loops over every parameter. In Release only: under sanitisers GCC 12 crashes on -O3 with a header precompiled at -O1.
set(HANSA_HOT $<$<CONFIG:Release>:-O3>)

function(hansa_merge target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${HANSA_MERGE} UNITY_BUILD_BATCH_SIZE 6)
  # GCC takes a merged source for a header, whose types with unnamed members differ from file to file.
  target_compile_options(${target} PRIVATE $<$<BOOL:${HANSA_MERGE}>:-Wno-subobject-linkage>)
endfunction()

function(hansa_add_library box)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(hansa_${box} STATIC ${ARG_SOURCES})
  target_include_directories(hansa_${box} PUBLIC ${PROJECT_SOURCE_DIR}/core)
  target_link_libraries(hansa_${box} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE} hansa_warnings)
  hansa_merge(hansa_${box})
  if(ARG_TORCH)
    hansa_precompile(hansa_${box} torch)
  else()
    hansa_precompile(hansa_${box} plain)
  endif()
endfunction()

function(hansa_add_test name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;LIBS" ${ARGN})
  add_executable(test_${name} ${ARG_SOURCES})
  target_link_libraries(test_${name} PRIVATE hansa_test_main ${ARG_LIBS} hansa_warnings)
  hansa_merge(test_${name})
  if(ARG_TORCH)
    hansa_precompile(test_${name} torch_test)
  else()
    hansa_precompile(test_${name} plain_test)
  endif()
  # A case that asserts nothing fails: LibTorch has a CHECK of its own, which a file gets that includes LibTorch without TORCH here.
  add_test(NAME ${name} COMMAND test_${name} -w NoAssertions)
  set_tests_properties(${name} PROPERTIES LABELS unit)
endfunction()
