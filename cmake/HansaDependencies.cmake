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

include(HansaLibTorch)
