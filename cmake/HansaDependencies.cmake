# Every outside package, found once. HANSA_LIBTORCH names a LibTorch folder; ./dev passes the one of the wheel in .venv.
set(HANSA_LIBTORCH "" CACHE PATH "LibTorch: a folder with include/, lib/ and share/cmake/Torch")
if(NOT EXISTS ${HANSA_LIBTORCH}/share/cmake/Torch/TorchConfig.cmake)
  message(FATAL_ERROR "HANSA_LIBTORCH='${HANSA_LIBTORCH}' holds no LibTorch (share/cmake/Torch/TorchConfig.cmake). "
    "Run ./dev setup, which installs one, or set HANSA_LIBTORCH=/path/to/libtorch.")
endif()

find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(CapnProto REQUIRED)
find_package(Catch2 2 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(sodium REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(tomlplusplus REQUIRED IMPORTED_TARGET tomlplusplus)
find_package(Boost 1.81 REQUIRED)

# LibTorch by hand rather than by its package config: that one adds global flags and searches for CUDA and MKL.
add_library(hansa_torch INTERFACE)
add_library(hansa::torch ALIAS hansa_torch)
target_include_directories(hansa_torch SYSTEM INTERFACE ${HANSA_LIBTORCH}/include)
target_link_directories(hansa_torch INTERFACE ${HANSA_LIBTORCH}/lib)
target_link_libraries(hansa_torch INTERFACE -Wl,--no-as-needed torch torch_cpu -Wl,--as-needed c10)
target_link_options(hansa_torch INTERFACE -Wl,-rpath,${HANSA_LIBTORCH}/lib)

# One fmt for the whole program: the one that LibTorch ships, header-only, in a folder of its own, because the wheel's
# include folder also holds other libraries' headers.
add_library(hansa_fmt INTERFACE)
add_library(hansa::fmt ALIAS hansa_fmt)
target_compile_definitions(hansa_fmt INTERFACE FMT_HEADER_ONLY=1)
if(EXISTS ${HANSA_LIBTORCH}/include/fmt/format.h)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt_only)
  file(CREATE_LINK ${HANSA_LIBTORCH}/include/fmt ${CMAKE_BINARY_DIR}/fmt_only/fmt SYMBOLIC)
  target_include_directories(hansa_fmt SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/fmt_only)
endif()
