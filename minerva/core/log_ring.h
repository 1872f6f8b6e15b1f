// llama.cpp's log lines, kept in memory until Python asks: a failed load is explained by its last lines.
#pragma once

#include <string>
#include <vector>

namespace minerva {

void                     install_log_ring();
std::vector<std::string> drain_log_ring();

} // namespace minerva
