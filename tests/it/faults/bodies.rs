//! Bodies that real clients send.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[Section {
    title: "Bodies of requests",
    faults: &[
        Fault {
            action: "an assistant message without content in a history: `null`, `[]`, no `content`, `tool_calls: []`, only \
                     `reasoning_content`; over gRPC: no parts",
            result: "an empty text; the conversation goes on",
            tests: &[
                "bodies::forms::assistant_messages_without_content_keep_the_conversation_going",
                "bodies::forms::empty_answers_thoughts_and_files_of_a_history_reach_the_upstream",
                "http::chat::convert::tests::convert_assistant_without_content_passes",
                "service::validate::tests::validate_empty_answer_in_a_history_is_an_empty_text",
            ],
        },
        Fault {
            action: "thoughts among the parts of an assistant message: `thinking`, `redacted_thinking`, `reasoning`",
            result: "left out, because Codex cannot take them; the text reaches the model. Only thoughts are an empty text",
            tests: &[
                "bodies::forms::thoughts_are_left_out_and_the_text_reaches_the_model",
                "bodies::forms::empty_answers_thoughts_and_files_of_a_history_reach_the_upstream",
                "http::chat::convert::tests::convert_thoughts_are_left_out",
            ],
        },
        Fault {
            action: "parts named as in the Responses API: `input_text`, `output_text`, `input_image` with a text as `image_url`, \
                     `input_file`",
            result: "taken as `text`, `image_url` and `file`",
            tests: &[
                "bodies::forms::parts_of_the_responses_api_are_seen_as_those_of_chat",
                "http::chat::convert::tests::convert_parts_of_the_responses_api_equal_those_of_chat",
            ],
        },
        Fault {
            action: "flat tools and a flat `response_format`, `{\"type\": \"function\", \"name\": …}`, and `tool_choice` as `\"any\"`, `{\"type\": \"auto\"}`, \
                     `{\"type\": \"tool\", \"name\": …}` and the like",
            result: "taken as OpenAI's forms; an error names the field as the client wrote it",
            tests: &[
                "bodies::forms::flat_tools_and_choices_of_other_apis_lead_to_calls",
                "http::chat::convert::tests::convert_flat_tools_equal_nested_tools",
                "http::chat::convert::tests::convert_flat_formats_equal_nested_formats",
                "http::chat::convert::tests::convert_tool_choice_takes_the_forms_of_other_apis",
            ],
        },
        Fault {
            action: "a body of the Responses API (`input`) or of the Completions API (`prompt`) on the chat route",
            result: "400 that says so and names the route",
            tests: &[
                "bodies::parameters::body_of_another_route_is_refused_with_the_right_one",
                "http::chat::convert::tests::convert_body_of_another_route_is_refused_with_the_right_one",
            ],
        },
        Fault {
            action: "`max_tokens` of 0, -1, -1.0 or beyond 32 bits; whole numbers written as `16.0`; over gRPC: 0",
            result: "no limit; 16",
            tests: &[
                "bodies::parameters::values_that_mean_nothing_pass",
                "http::chat::request::tests::limit_u32_beyond_the_range_is_no_limit",
                "service::validate::tests::validate_limit_of_zero_tokens_is_no_limit",
            ],
        },
        Fault {
            action: "values that mean \"off\" or nothing: `functions: []`, `function_call: \"none\"`, `logprobs: false`, \
                     `modalities: [\"text\"]`, `stop: []`, `stream_options: {}` without a stream, `null`",
            result: "passed over, without a name in the header",
            tests: &[
                "bodies::parameters::values_that_mean_nothing_pass",
                "http::forms::extra_params::tests::ignored_values_that_mean_off_pass",
                "http::chat::convert::tests::convert_values_that_mean_nothing_pass",
            ],
        },
        Fault {
            action: "a byte order mark before the JSON",
            result: "skipped",
            tests: &[
                "bodies::parameters::body_after_a_byte_order_mark_is_read",
                "http::extract::tests::parse_skips_a_byte_order_mark",
            ],
        },
        Fault {
            action: "wrong values of ignored parameters: `temperature: 9` or `\"hot\"`, `top_p`, penalties, `seed`, `user`, `store`",
            result: "400 with the parameter's name",
            tests: &[
                "bodies::parameters::wrong_values_of_ignored_parameters_are_refused_by_name",
                "http::forms::extra_params::tests::ignored_unsupported_and_wrong_values_are_refused_by_name",
            ],
        },
        Fault {
            action: "`reasoning_effort: \"bogus\"`",
            result: "400 with the model's efforts, if the CLI's catalog has the model, also under an alias; otherwise passed on. \
                     `none` and `minimal` are always passed on, because the catalog lacks them for models that have them",
            tests: &[
                "bodies::parameters::efforts_and_tiers_of_a_known_model_are_checked_at_both_doors",
                "service::validate::tests::validate_words_of_a_known_model_are_those_of_its_catalog",
            ],
        },
        Fault {
            action: "`service_tier`",
            result: "`flex`, `priority` and the model's own tiers reach the upstream over both engines; other words are 400. Codex \
                     sends no tier that the model lacks, and its warning becomes a notice",
            tests: &[
                "bodies::parameters::service_tier_is_passed_to_codex",
                "bodies::parameters::service_tier_reaches_the_upstream",
            ],
        },
        Fault {
            action: "`prompt_cache_key`",
            result: "at most 512 bytes; requests of one caller with the same key have the same key at the upstream (profile `chat` without client tools, app-server)",
            tests: &[
                "bodies::parameters::wrong_values_of_ignored_parameters_are_refused_by_name",
                "http::chat::convert::tests::convert_words_for_codex_are_passed_on",
                "service::validate::tests::validate_prompt_cache_key_is_kept_and_an_empty_one_is_none",
            ],
        },
        Fault {
            action: "text files as parts: `file` or `input_file` with a `data:` URL or base64; over gRPC: `File`",
            result: "the model gets the text and the name between tags that no text can close; the text counts as prompt",
            tests: &[
                "bodies::files::text_files_reach_the_model_with_their_name_at_both_doors",
                "bodies::forms::empty_answers_thoughts_and_files_of_a_history_reach_the_upstream",
                "service::validate::file::tests::text_cannot_end_its_own_tag",
                "service::validate::file::tests::text_of_every_kind_of_text_file_is_kept_with_its_name",
            ],
        },
        Fault {
            action: "a PDF, an image or a binary file as a file part; a `file_id` or `file_url`",
            result: "400 with the part and the file's name",
            tests: &[
                "bodies::files::files_that_are_no_text_are_refused_by_name_at_both_doors",
                "service::validate::file::tests::text_of_files_of_other_kinds_is_refused_by_name",
                "http::forms::file::tests::decode_file_without_readable_data_is_refused_by_place",
            ],
        },
        Fault {
            action: "12 pictures in a history",
            result: "answered: the default of `CODEX_MAX_IMAGES` is 50",
            tests: &["bodies::files::fifty_pictures_of_a_long_history_pass_by_default"],
        },
        Fault {
            action: "`detail` of a picture",
            result: "Codex chooses the resolution: anything but `auto` is named in `x-codex-ignored-params`, an unknown word is 400",
            tests: &["bodies::files::resolution_of_a_picture_is_named_as_ignored"],
        },
        Fault {
            action: "a prompt above `CODEX_MAX_PROMPT_CHARS`, or a conversation that is too long for the model",
            result: "413 or 400 that begins with `This model's maximum context length is exceeded: ` and contains `Please reduce the \
                     length of the messages`, because agents compact a conversation at these words; a 413 names the setting, its \
                     value and the model's window",
            tests: &[
                "bodies::parameters::long_prompt_is_refused_with_the_words_that_agents_search",
                "error::tests::text_about_a_long_prompt_has_the_words_that_agents_search",
                "service::validate::tests::validate_long_prompt_names_the_window_of_a_known_model",
            ],
        },
        Fault {
            action: "a wrong or missing key",
            result: "401 that contains `Incorrect API key provided`",
            tests: &["bodies::parameters::wrong_key_is_refused_with_the_words_that_clients_search"],
        },
        Fault {
            action: "many megabytes of members that the server does not know, such as `{\"x\": [0,0,…]}`, at any place",
            result: "skipped: the server needs a small multiple of the body, not 50 times as much",
            tests: &["bodies::junk::unknown_members_need_no_more_memory_than_the_body"],
        },
        Fault {
            action: "an alias to a name with a profile: `{\"fast\": \"gpt-5.5:chat\"}`",
            result: "the suffix selects the profile; a suffix of the client's own takes precedence. A profile that the server can \
                     never offer is an error of the configuration",
            tests: &[
                "bodies::parameters::suffix_of_an_alias_target_selects_the_profile",
                "config::tests::load_alias_with_a_profile_that_the_server_lacks_is_refused",
                "service::validate::tests::validate_suffix_of_an_alias_target_selects_the_profile",
            ],
        },
        Fault {
            action: "several system messages at any place, nulls, unknown members, `arguments: \"\"`",
            result: "accepted",
            tests: &[
                "bodies::forms::several_system_messages_nulls_and_unknown_members_pass",
                "bodies::forms::empty_arguments_of_an_earlier_call_pass",
            ],
        },
    ],
}];
