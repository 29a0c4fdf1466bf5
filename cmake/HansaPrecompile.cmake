# hansa_precompile(target plain|torch|plain_test|torch_test): headers from outside, which nearly every file includes, are parsed
# once for all. plain: the standard library, fmt and JSON. torch: the standard library, fmt and LibTorch's tensor. For tests Catch2
# as well; apart, because LibTorch's operator<< for every vector would change what Catch2 can print.
# Only headers that we do not change: a change to one of ours rebuilds what includes it, no more. GCC takes a precompiled header
# only under the same -fPIC and macros (-O may differ), so programs that use one are compiled with -fPIC too.
# CMAKE_DISABLE_PRECOMPILE_HEADERS=ON builds without (clang-tidy cannot read GCC's).
# OpenMP changes macros too, so all have it: hansa::torch asks for it (HansaLibTorch.cmake says why).
function(hansa_openmp target)
  if(HANSA_OPENMP)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  endif()
endfunction()
function(hansa_precompiled name)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/precompiled/${name}.cpp CONTENT "")
  add_library(hansa_precompiled_${name} OBJECT ${CMAKE_BINARY_DIR}/precompiled/${name}.cpp)
  target_precompile_headers(hansa_precompiled_${name} PRIVATE ${ARGN})
  foreach(library hansa::fmt hansa::torch nlohmann_json::nlohmann_json Catch2::Catch2)
    target_include_directories(hansa_precompiled_${name} SYSTEM PRIVATE $<TARGET_PROPERTY:${library},INTERFACE_INCLUDE_DIRECTORIES>)
  endforeach()
  hansa_openmp(hansa_precompiled_${name})
endfunction()

set(standard <algorithm> <array> <atomic> <chrono> <cmath> <condition_variable> <cstdint> <cstring> <deque> <exception> <filesystem>
  <fstream> <functional> <limits> <map> <memory> <mutex> <numeric> <optional> <random> <set> <span> <sstream> <stdexcept> <string>
  <string_view> <thread> <unordered_map> <utility> <variant> <vector> <fmt/format.h>)
set(tensor <ATen/core/Tensor.h> <ATen/TensorOperators.h> <ATen/core/grad_mode.h> <ATen/ops/empty.h> <ATen/ops/full.h> <ATen/ops/zeros.h>)
hansa_precompiled(plain ${standard} <nlohmann/json.hpp>)
hansa_precompiled(torch ${standard} ${tensor})
hansa_precompiled(plain_test ${standard} <nlohmann/json.hpp> ${PROJECT_SOURCE_DIR}/tests/support/test.hpp)
hansa_precompiled(torch_test ${standard} ${tensor} ${PROJECT_SOURCE_DIR}/tests/support/test.hpp)
foreach(name torch torch_test)
  target_compile_definitions(hansa_precompiled_${name} PRIVATE AT_PER_OPERATOR_HEADERS)
endforeach()

function(hansa_precompile target name)
  target_precompile_headers(${target} REUSE_FROM hansa_precompiled_${name})
  hansa_openmp(${target})
  if(name MATCHES torch)
    target_compile_definitions(${target} PRIVATE AT_PER_OPERATOR_HEADERS)
  endif()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL EXECUTABLE)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()
