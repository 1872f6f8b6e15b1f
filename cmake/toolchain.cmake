# Compilers and Python's headers. What is missing is told in one line, with what to do.

include(CheckLanguage)
foreach(language C CXX)
    check_language(${language})
    if (NOT CMAKE_${language}_COMPILER)
        message(FATAL_ERROR "No ${language} compiler: `apt install g++` on Debian, `xcode-select --install` on macOS, "
            "or set CC and CXX to one that supports C++17.")
    endif()
    enable_language(${language})
endforeach()

set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if (MINERVA_DEBUG)
    add_compile_definitions(_GLIBCXX_ASSERTIONS)  # bounds checks in the C++ library, llama.cpp included
endif()

find_package(Python QUIET COMPONENTS Interpreter Development.Module)
if (NOT Python_FOUND)
    message(FATAL_ERROR "Python's headers are missing: `apt install python3-dev` on Debian. (${Python_NOT_FOUND_MESSAGE})")
endif()
