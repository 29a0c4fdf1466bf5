# `cmake --install`: the program, its plugins, and all that an author needs to build one with no source tree around:
#
#   bin/hansa                    lib/hansa/plugins/*.so           share/hansa/template/<kind>/   for `hansa plugins new`
#   include/hansa/               the interfaces                   lib/cmake/hansa/               find_package(hansa CONFIG)
#   include/hansa_sdk/<box>/     headers of the SDK's libraries   lib/hansa/sdk/*.a
#
# LibTorch is not copied: the package remembers where it was, and takes HANSA_LIBTORCH instead where that is set.
include(CMakePackageConfigHelpers)

set(boxes formatter base dp hf hf_files data quantised nn train seeds factors)  # libraries beside the interfaces; hansa::<box>
set(exported hansa_types hansa_schema hansa_sdk hansa_warnings)
foreach(box ${boxes})
  if(TARGET hansa_${box})
    list(APPEND exported hansa_${box})
  endif()
endforeach()

foreach(target ${exported})
  string(REGEX REPLACE "^hansa_" "" name ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  # Include folders of the source tree stay behind.
  get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  if(folders)
    set(here "")
    foreach(folder ${folders})
      list(APPEND here $<BUILD_INTERFACE:${folder}>)
    endforeach()
    set(there include/hansa_sdk)
    if(target STREQUAL hansa_types)
      set(there include)
    endif()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${here};$<INSTALL_INTERFACE:${there}>")
  endif()
endforeach()
target_compile_features(hansa_types INTERFACE cxx_std_20)

install(TARGETS ${exported} EXPORT hansa ARCHIVE DESTINATION lib/hansa/sdk)
install(EXPORT hansa NAMESPACE hansa:: FILE hansaTargets.cmake DESTINATION lib/cmake/hansa)
install(DIRECTORY sdk/include/hansa DESTINATION include)
foreach(box ${boxes})
  if(IS_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/sdk/${box})
    install(DIRECTORY sdk/${box} DESTINATION include/hansa_sdk FILES_MATCHING PATTERN "*.hpp")
  endif()
endforeach()
install(DIRECTORY core/base DESTINATION include/hansa_sdk FILES_MATCHING PATTERN "*.hpp")
install(DIRECTORY sdk/template DESTINATION share/hansa)

hansa_torch_version(${HANSA_LIBTORCH} HANSA_TORCH_VERSION)
configure_file(sdk/cmake/hansaConfig.cmake.in hansaConfig.cmake @ONLY)
write_basic_package_version_file(hansaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/hansaConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/hansaConfigVersion.cmake
  cmake/HansaLibTorch.cmake sdk/cmake/HansaAddPlugin.cmake sdk/cmake/build_note.cpp.in sdk/cmake/plugin.map
  DESTINATION lib/cmake/hansa)

install(TARGETS hansa RUNTIME DESTINATION bin)
