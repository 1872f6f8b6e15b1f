#include "chat_format.h"

#include "chat.h"
#include "common.h"

#include <cctype>
#include <stdexcept>

namespace minerva {

struct ChatTemplate::Impl {
    const llama_model *       model;
    common_chat_templates_ptr templates;
};

ChatTemplate::ChatTemplate(const llama_model * model, const std::string & source)
    : impl_(new Impl{ model, common_chat_templates_init(model, source) }) {}

ChatTemplate::~ChatTemplate() = default;

std::string ChatTemplate::source() const {
    return common_chat_templates_source(impl_->templates.get());
}

namespace {

common_chat_templates_inputs inputs_of(const common_json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages              = common_chat_msgs_parse_oaicompat(request.at("messages"));
    inputs.tools                 = common_chat_tools_parse_oaicompat(request.value("tools", common_json::array()));
    inputs.tool_choice           = common_chat_tool_choice_parse_oaicompat(request.value("tool_choice", "auto"));
    inputs.parallel_tool_calls   = request.value("parallel_tool_calls", true);
    inputs.enable_thinking       = request.value("enable_thinking", true);
    inputs.add_generation_prompt = request.value("add_generation_prompt", true);
    inputs.reasoning_format      = COMMON_REASONING_FORMAT_AUTO;
    inputs.use_jinja             = true;
    if (request.contains("template_kwargs")) {
        for (const auto & item : request.at("template_kwargs").items()) {
            inputs.chat_template_kwargs[item.key()] = item.value().get<std::string>();
        }
    }
    return inputs;
}

void set_triggers(const llama_vocab * vocab, const common_chat_params & params, GrammarSpec & grammar) {
    for (const auto & trigger : params.grammar_triggers) {
        switch (trigger.type) {
            case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:
                grammar.trigger_tokens.push_back(trigger.token);
                break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: {
                const auto ids = common_tokenize(vocab, trigger.value, false, true);
                if (ids.size() == 1) {
                    grammar.trigger_tokens.push_back(ids[0]);
                } else {
                    grammar.trigger_patterns.push_back(regex_escape(trigger.value));
                }
                break;
            }
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:
                grammar.trigger_patterns.push_back(trigger.value);
                break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: {
                const std::string & p = trigger.value;
                grammar.trigger_patterns.push_back(p.empty() ? "^$"
                    : (p.front() != '^' ? "^" : "") + p + (p.back() != '$' ? "$" : ""));
                break;
            }
        }
    }
}

bool ends_with(std::string text, const std::string & tag) {
    text.erase(text.find_last_not_of(" \n\t") + 1);
    return !tag.empty() && text.size() >= tag.size() && text.compare(text.size() - tag.size(), tag.size(), tag) == 0;
}

// The grammar begins with what the template has already put before the answer.
std::vector<llama_token> prefill_of(const llama_vocab * vocab, const std::string & generation_prompt) {
    std::vector<llama_token> prefill;
    const auto tokens = common_tokenize(vocab, generation_prompt, false, true);
    for (size_t i = 0; i < tokens.size(); ++i) {
        const std::string piece = common_token_to_piece(vocab, tokens[i], true);
        const bool added_space = i == 0 && !piece.empty() && isspace((unsigned char) piece[0]) &&
            !isspace((unsigned char) generation_prompt[0]);
        if (!added_space) {
            prefill.push_back(tokens[i]);
        }
    }
    return prefill;
}

} // namespace

RenderedChat ChatTemplate::render(const std::string & request_json) const {
    const llama_vocab * vocab   = llama_model_get_vocab(impl_->model);
    const common_json   request = common_json::parse(request_json);
    const auto          inputs  = inputs_of(request);
    const auto          params  = common_chat_templates_apply(impl_->templates.get(), inputs);

    RenderedChat chat;
    chat.prompt            = params.prompt;
    chat.stops             = params.additional_stops;
    chat.format            = (int) params.format;
    chat.parser            = params.parser;
    chat.generation_prompt = params.generation_prompt;
    chat.supports_thinking = params.supports_thinking;
    chat.begins_thinking   = ends_with(params.prompt, params.thinking_start_tag);
    chat.parse_tool_calls  = !inputs.tools.empty() && inputs.tool_choice != COMMON_CHAT_TOOL_CHOICE_NONE;
    chat.plain             = inputs.tools.empty() && !params.supports_thinking;
    for (const auto & text : params.preserved_tokens) {
        const auto ids = common_tokenize(vocab, text, false, true);
        if (ids.size() == 1) {
            chat.preserved_tokens.push_back(ids[0]);
        }
    }
    chat.grammar.source = params.grammar;
    chat.grammar.lazy   = params.grammar_lazy && !params.grammar.empty();
    if (chat.grammar.lazy) {
        set_triggers(vocab, params, chat.grammar);
    } else if (!params.grammar.empty() && !params.generation_prompt.empty()) {
        chat.grammar.prefill = prefill_of(vocab, params.generation_prompt);
    }
    return chat;
}

struct ChatParser::Impl {
    common_chat_parser_params params;
    std::string               text;
    common_chat_msg           message;
    std::vector<std::string>  ids;
};

ChatParser::ChatParser(const RenderedChat & chat) : impl_(new Impl) {
    auto & params = impl_->params;
    params.format            = (common_chat_format) chat.format;
    params.reasoning_format  = COMMON_REASONING_FORMAT_AUTO;
    params.generation_prompt = chat.generation_prompt;
    params.parse_tool_calls  = chat.parse_tool_calls;
    if (!chat.parser.empty()) {
        params.parser.load(chat.parser);
    }
}

ChatParser::~ChatParser() = default;

std::string ChatParser::push(const std::string & text, bool last) {
    auto & self = *impl_;
    self.text += text;
    common_chat_msg now;
    try {
        now = common_chat_parse(self.text, !last, self.params);
    } catch (const std::exception &) {
        // Final output that does not match the template's format: what a partial reading makes of it, or as it is.
        try {
            now = common_chat_parse(self.text, true, self.params);
        } catch (const std::exception &) {
            now = self.message;
            if (last && now.empty()) {
                now.role    = "assistant";
                now.content = self.text;
            }
        }
    }
    now.set_tool_call_ids(self.ids, [&] { return std::string(); });
    std::vector<common_chat_msg_diff> diffs;
    try {
        diffs = common_chat_msg_diff::compute_diffs(self.message, now);
    } catch (const std::exception &) {
        // More text made another thing of what was given already (half a call that is none): that cannot be taken back.
        now = self.message;
    }
    auto calls = common_json::array();
    std::string content, reasoning;
    for (const auto & diff : diffs) {
        content   += diff.content_delta;
        reasoning += diff.reasoning_content_delta;
        if (diff.tool_call_index != std::string::npos) {
            calls.push_back({ { "index", diff.tool_call_index },
                              { "id", diff.tool_call_delta.id },
                              { "name", diff.tool_call_delta.name },
                              { "arguments", diff.tool_call_delta.arguments } });
        }
    }
    self.message = std::move(now);
    common_json out = { { "content", content }, { "reasoning", reasoning } };
    out["tool_calls"] = calls;
    return out.dump_safe();
}

} // namespace minerva
