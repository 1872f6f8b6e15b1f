# minerva._core: Cython over our C++ (minerva/core) over llama.cpp, one extension with everything inside.

find_program(CYTHON NAMES cython cython3 HINTS ${Python_ROOT_DIR}/bin REQUIRED)

set(pyx ${CMAKE_SOURCE_DIR}/minerva/_core.pyx)
set(generated ${CMAKE_BINARY_DIR}/_core.cpp)
set(directives -X language_level=3 -X embedsignature=True)
if (MINERVA_DEBUG)
    list(APPEND directives -X boundscheck=True -X initializedcheck=True -X cdivision=False)
else()
    list(APPEND directives -X boundscheck=False -X initializedcheck=False -X cdivision=True)
endif()
file(GLOB pxd CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/minerva/*.pxd)
add_custom_command(
    OUTPUT ${generated}
    COMMAND ${CYTHON} -3 --cplus -Werror ${directives} ${pyx} -o ${generated}
    DEPENDS ${pyx} ${pxd}
    COMMENT "Cythonizing minerva._core"
    VERBATIM)

python_add_library(_core MODULE WITH_SOABI ${generated}
    minerva/core/batch.cpp
    minerva/core/chat_format.cpp
    minerva/core/log_ring.cpp
    minerva/core/row_sampler.cpp
    minerva/core/text_stream.cpp)
target_include_directories(_core PRIVATE minerva/core)
target_link_libraries(_core PRIVATE llama-common llama mtmd ggml)
target_compile_definitions(_core PRIVATE MINERVA_DEBUG=$<BOOL:${MINERVA_DEBUG}>)
if (MINERVA_DEBUG)
    target_compile_options(_core PRIVATE -UNDEBUG)
endif()
set_source_files_properties(${generated} PROPERTIES COMPILE_OPTIONS "-Wno-unused-function")
if (CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
    target_compile_options(_core PRIVATE -fvisibility=hidden)
    set_source_files_properties(minerva/core/row_sampler.cpp PROPERTIES COMPILE_OPTIONS
        "$<IF:$<BOOL:${GGML_NATIVE}>,-march=native,>;-O3;-fno-math-errno")
endif()
if (CMAKE_SYSTEM_NAME STREQUAL "Linux")
    # Symbols of the static libraries stay inside: another extension may carry its own llama.cpp.
    target_link_options(_core PRIVATE -Wl,--exclude-libs,ALL)
endif()
find_package(OpenMP COMPONENTS CXX QUIET)
if (OpenMP_CXX_FOUND)
    target_link_libraries(_core PRIVATE OpenMP::OpenMP_CXX)
endif()
install(TARGETS _core DESTINATION minerva COMPONENT minerva)
install(FILES ${llama_cpp_dir}/LICENSE DESTINATION minerva/licenses RENAME llama.cpp.txt COMPONENT minerva)
