# The shared library with the C interface (csrc/include/sparsekit.h), for find_package(sparsekit).
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

add_library(sparsekit SHARED csrc/c_api/sparsekit.cpp)
target_link_libraries(sparsekit PRIVATE sparsekit_core)
target_compile_definitions(sparsekit PRIVATE SPARSEKIT_VERSION="${PROJECT_VERSION}")
target_include_directories(sparsekit INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include>
                                               $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(sparsekit PROPERTIES PUBLIC_HEADER csrc/include/sparsekit.h)

install(TARGETS sparsekit EXPORT sparsekitTargets PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/sparsekit)
install(EXPORT sparsekitTargets NAMESPACE sparsekit:: DESTINATION ${package})
configure_package_config_file(cmake/sparsekitConfig.cmake.in sparsekitConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(sparsekitConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/sparsekitConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/sparsekitConfigVersion.cmake
        DESTINATION ${package})
