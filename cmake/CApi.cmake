# The C interface (csrc/include/sparsekit.h), for find_package(sparsekit): sparsekit::sparsekit is a shared library,
# sparsekit::sparsekit_static one that needs C++ enabled in the project, for its runtime.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

add_library(sparsekit_c_api OBJECT csrc/c_api/session.cpp csrc/c_api/sparsekit.cpp)
target_link_libraries(sparsekit_c_api PRIVATE sparsekit_core)
target_compile_definitions(sparsekit_c_api PRIVATE SPARSEKIT_VERSION="${PROJECT_VERSION}")

add_library(sparsekit SHARED $<TARGET_OBJECTS:sparsekit_c_api>)
target_link_libraries(sparsekit PRIVATE sparsekit_core)
set_target_properties(sparsekit PROPERTIES PUBLIC_HEADER csrc/include/sparsekit.h)

# Whole in itself: with the objects of the core and of its kernels.
add_library(sparsekit_static STATIC $<TARGET_OBJECTS:sparsekit_c_api> $<TARGET_OBJECTS:sparsekit_core>)
foreach(isa IN LISTS SPARSEKIT_ISAS)
  target_sources(sparsekit_static PRIVATE $<TARGET_OBJECTS:kernels_${isa}>)
endforeach()
target_link_libraries(sparsekit_static PUBLIC Threads::Threads)
set_target_properties(sparsekit_static PROPERTIES OUTPUT_NAME sparsekit)

foreach(library sparsekit sparsekit_static)
  set_target_properties(${library} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(${library} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include>
                                                  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()

install(TARGETS sparsekit sparsekit_static EXPORT sparsekitTargets
        PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/sparsekit)
install(EXPORT sparsekitTargets NAMESPACE sparsekit:: DESTINATION ${package})
configure_package_config_file(cmake/sparsekitConfig.cmake.in sparsekitConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(sparsekitConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/sparsekitConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/sparsekitConfigVersion.cmake
        DESTINATION ${package})
