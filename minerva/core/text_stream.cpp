#include "text_stream.h"

#include <algorithm>
#include <cstdint>

namespace minerva {

namespace {

constexpr const char * REPLACEMENT = "\xEF\xBF\xBD";

struct Character {
    size_t bytes;    // of the character; of a malformed one those that could have begun one, at least 1
    bool   whole;    // well-formed (Unicode 15, table 3-7)
    bool   more;     // the bytes end inside a character that is well-formed so far
};

Character character_at(const uint8_t * p, size_t n) {
    const uint8_t lead = p[0];
    if (lead < 0x80) {
        return { 1, true, false };
    }
    size_t  length = 0;
    uint8_t low = 0x80, high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
        length = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        length = 3;
        low  = lead == 0xE0 ? 0xA0 : 0x80;
        high = lead == 0xED ? 0x9F : 0xBF;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4;
        low  = lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xF4 ? 0x8F : 0xBF;
    } else {
        return { 1, false, false };
    }
    for (size_t i = 1; i < length; ++i) {
        if (i >= n) {
            return { n, false, true };
        }
        if (p[i] < low || p[i] > high) {
            return { i, false, false };
        }
        low = 0x80;
        high = 0xBF;
    }
    return { length, true, false };
}

} // namespace

void append_utf8(const char * bytes, size_t n, std::string & out) {
    const uint8_t * p = reinterpret_cast<const uint8_t *>(bytes);
    size_t i = 0;
    while (i < n) {
        const Character c = character_at(p + i, n - i);
        if (c.whole) {
            out.append(bytes + i, c.bytes);
        } else {
            out.append(REPLACEMENT);
        }
        i += c.bytes;
    }
}

size_t incomplete_tail(const char * bytes, size_t n) {
    const uint8_t * p = reinterpret_cast<const uint8_t *>(bytes);
    for (size_t back = 1; back <= std::min<size_t>(3, n); ++back) {
        const uint8_t byte = p[n - back];
        if (byte >= 0xC0) {
            return character_at(p + n - back, back).more ? back : 0;
        }
        if (byte < 0x80) {
            return 0;
        }
    }
    return 0;
}

size_t TextStream::stop_prefix() const {
    size_t longest = 0;
    for (const auto & stop : stops_) {
        for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
            if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) {
                longest = n;
                break;
            }
        }
    }
    return longest;
}

bool TextStream::push(const char * bytes, size_t n, std::string & out) {
    held_.append(bytes, n);
    size_t first = std::string::npos;
    for (size_t i = 0; i < stops_.size(); ++i) {
        const size_t at = held_.find(stops_[i]);
        if (at < first) {
            first = at;
            stop_index_ = (int) i;
        }
    }
    if (first != std::string::npos) {
        append_utf8(held_.data(), first, out);
        held_.clear();
        return true;
    }
    const size_t shown = held_.size() - stop_prefix();
    const size_t whole = shown - incomplete_tail(held_.data(), shown);
    append_utf8(held_.data(), whole, out);
    held_.erase(0, whole);
    return false;
}

void TextStream::flush(std::string & out) {
    append_utf8(held_.data(), held_.size(), out);
    held_.clear();
}

} // namespace minerva
