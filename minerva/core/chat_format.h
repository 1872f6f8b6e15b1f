// libcommon's chat templates, answer parsers and schema grammars, behind calls that take and give JSON text.
// Everything here may throw std::exception; none of it belongs on the engine's thread.
#pragma once

#include "llama.h"

#include "row_sampler.h"

#include <memory>
#include <string>
#include <vector>

namespace minerva {

// A conversation rendered for one request: the prompt, and how the answer is to be constrained and read.
struct RenderedChat {
    std::string              prompt;
    GrammarSpec              grammar;
    std::vector<llama_token> preserved_tokens;    // control tokens whose text the parser needs
    std::vector<std::string> stops;
    bool                     plain = false;       // the answer is its own text: no parser is needed
    bool                     supports_thinking = false;
    bool                     begins_thinking = false;    // the prompt ends inside the thoughts

    int         format = 0;
    std::string parser;
    std::string generation_prompt;
    bool        parse_tool_calls = false;
};

class ChatTemplate {
public:
    // `source` overrides the model's own template when it is not empty.
    ChatTemplate(const llama_model * model, const std::string & source);
    ~ChatTemplate();

    // `request`: messages, tools, tool_choice, parallel_tool_calls, enable_thinking, template_kwargs (values are
    // JSON text), add_generation_prompt.
    RenderedChat render(const std::string & request) const;
    std::string  source() const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Reads an answer as it grows.
class ChatParser {
public:
    explicit ChatParser(const RenderedChat & chat);
    ~ChatParser();

    // Adds text, gives what it changed: {"content", "reasoning", "tool_calls": [{"index","id","name","arguments"}]}.
    std::string push(const std::string & text, bool last);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace minerva
