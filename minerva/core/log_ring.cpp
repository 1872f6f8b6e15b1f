#include "log_ring.h"

#include "llama.h"
#include "log.h"

#include <deque>
#include <mutex>

namespace minerva {

namespace {

constexpr size_t CAPACITY = 200;

std::mutex              mutex;
std::deque<std::string> lines;
bool                    continues = false;

void keep(ggml_log_level level, const char * text, void *) {
    std::lock_guard<std::mutex> lock(mutex);
    if (level == GGML_LOG_LEVEL_CONT) {
        if (continues && !lines.empty()) {
            lines.back() += text;
        }
        return;
    }
    continues = level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR;
    if (!continues) {
        return;
    }
    lines.emplace_back(text);
    if (lines.size() > CAPACITY) {
        lines.pop_front();
    }
}

} // namespace

void install_log_ring() {
    llama_log_set(keep, nullptr);
    common_log_set_verbosity_thold(-1);
}

std::vector<std::string> drain_log_ring() {
    std::lock_guard<std::mutex> lock(mutex);
    std::vector<std::string> out(lines.begin(), lines.end());
    lines.clear();
    return out;
}

} // namespace minerva
