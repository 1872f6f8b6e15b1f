// From token pieces to text that may be shown: whole UTF-8 characters, and never a part of a stop string.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace minerva {

// Appends `bytes` to `out`, the longest beginning of a character that is not one (or a stray byte) as one U+FFFD:
// Unicode's recommended practice (chapter 3.9) and Python's, and independent of where the bytes were split.
void append_utf8(const char * bytes, size_t n, std::string & out);

// How many bytes at the end are the beginning of a character that is not complete yet (0 to 3).
size_t incomplete_tail(const char * bytes, size_t n);

class TextStream {
public:
    explicit TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {}

    // Takes the bytes of one token, appends to `out` what may be shown. True when a stop string is complete:
    // it and all after it are dropped, and `stop_index` says which.
    bool push(const char * bytes, size_t n, std::string & out);

    // Appends what is still held: at the end of a sequence nothing can become a stop string any more.
    void flush(std::string & out);

    int stop_index() const { return stop_index_; }

private:
    size_t stop_prefix() const;

    std::vector<std::string> stops_;
    std::string              held_;
    int                      stop_index_ = -1;
};

} // namespace minerva
