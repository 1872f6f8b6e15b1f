# The vendored llama.cpp: unpacked from the pin unless a tree is given, then built static, libraries only.

if (NOT MINERVA_LLAMA_CPP_DIR)
    execute_process(
        COMMAND ${Python_EXECUTABLE} ${CMAKE_SOURCE_DIR}/vendor/llama.cpp/unpack.py
        RESULT_VARIABLE unpack_failed)
    if (unpack_failed)
        message(FATAL_ERROR "llama.cpp could not be unpacked; the line above says why.")
    endif()
    set(llama_cpp_dir ${CMAKE_SOURCE_DIR}/vendor/llama.cpp/tree)
    file(GLOB patches CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/vendor/llama.cpp/patches/*.patch)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
        ${CMAKE_SOURCE_DIR}/vendor/llama.cpp/pin.json ${patches})
elseif (NOT EXISTS ${MINERVA_LLAMA_CPP_DIR}/include/llama.h)
    message(FATAL_ERROR "MINERVA_LLAMA_CPP_DIR is ${MINERVA_LLAMA_CPP_DIR}, which holds no include/llama.h")
else()
    set(llama_cpp_dir ${MINERVA_LLAMA_CPP_DIR})
endif()

set(BUILD_SHARED_LIBS    OFF CACHE BOOL "" FORCE)
set(LLAMA_BUILD_COMMON   ON  CACHE BOOL "" FORCE)
set(LLAMA_BUILD_MTMD     ON  CACHE BOOL "" FORCE)
set(LLAMA_BUILD_TOOLS    OFF CACHE BOOL "" FORCE)
set(LLAMA_BUILD_EXAMPLES OFF CACHE BOOL "" FORCE)
set(LLAMA_BUILD_SERVER   OFF CACHE BOOL "" FORCE)
set(LLAMA_BUILD_APP      OFF CACHE BOOL "" FORCE)
set(LLAMA_BUILD_TESTS    OFF CACHE BOOL "" FORCE)
set(LLAMA_OPENSSL        OFF CACHE BOOL "" FORCE)
set(LLAMA_SUBPROCESS     OFF CACHE BOOL "" FORCE)
set(GGML_RPC             OFF CACHE BOOL "" FORCE)
if (MINERVA_PORTABLE OR (DEFINED ENV{SOURCE_DATE_EPOCH} AND NOT DEFINED CACHE{GGML_NATIVE}))
    # SOURCE_DATE_EPOCH (a distribution's reproducible build) would give ggml plain SSE2, several times slower.
    set(MINERVA_PORTABLE ON CACHE BOOL "" FORCE)
    set(GGML_NATIVE OFF CACHE BOOL "" FORCE)
    foreach(feature SSE42 AVX AVX2 BMI2 FMA F16C)
        option(GGML_${feature} "ggml: enable ${feature}" ON)
    endforeach()
endif()
if (APPLE)
    # The shaders travel inside the extension: a wheel has no place for a .metallib.
    option(GGML_METAL               "ggml: use Metal"           ON)
    option(GGML_METAL_EMBED_LIBRARY "ggml: embed Metal library" ON)
    option(GGML_ACCELERATE          "ggml: enable Accelerate"   ON)
endif()

add_subdirectory(${llama_cpp_dir} ${CMAKE_BINARY_DIR}/llama.cpp EXCLUDE_FROM_ALL)

# Patched kernels call functions that stand in our own header.
target_include_directories(ggml-cpu PRIVATE ${CMAKE_SOURCE_DIR}/minerva/core)
