//! Requests that cost too much.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[Section {
    title: "Requests that cost too much",
    faults: &[
        Fault {
            action: "30 MB of one repeated or unknown protobuf field, in the request, a part, a call or a format; the same to `GetStatus` and `ListModels`",
            result: "INVALID_ARGUMENT with the field `request` before it is decoded: a message has at most a million fields, and 64 KiB where the method has no parameters",
            tests: &["grpc::wire_counts::tests::check_limits_the_fields_of_every_message"],
        },
        Fault {
            action: "a strict tool with 300 patterns of `\\p{L}{160}` (20 kB): 34 s frozen, 2.4 GB for good",
            result: "400 with the tool's field and the limit, after a millisecond; schemas are compiled once, after admission, \
                     two at a time, off the runtime's threads; at most 32 MiB stay cached",
            tests: &[
                "limits::hazards::patterns_of_a_strict_tool",
                "engine::app_server::tools::schema_compiler::tests::tool_set_limits_hold_for_all_strict_tools_together",
                "engine::app_server::tools::schema_compiler::tests::cache_evicts_the_least_recently_used_beyond_its_bytes",
            ],
        },
        Fault {
            action: "160,000 tools (47 s frozen)",
            result: "400 `tools` (`CODEX_MAX_TOOLS`, 128 as at OpenAI), found while the body is read",
            tests: &[
                "limits::hazards::too_many_tools",
                "service::validate::tests::validate_lists_have_limits",
                "grpc::wire_counts::tests::check_counts_each_list_of_the_contract",
            ],
        },
        Fault {
            action: "10 strict tools of 30,000 properties (5 s frozen); descriptions or schemas of any tools longer than the prompt",
            result: "400 with the tool's field, or 413 that says how much of the prompt the messages, the tools and the schema of the \
                     answer are (`CODEX_MAX_PROMPT_CHARS`)",
            tests: &[
                "limits::hazards::too_many_properties",
                "service::validate::tests::validate_prompt_limit_counts_calls_tools_and_schemas",
            ],
        },
        Fault {
            action: "50,000 empty answers behind long instructions (6 s frozen)",
            result: "400 `messages` (`CODEX_MAX_MESSAGES`, 10,000); below the limit, the time is linear",
            tests: &[
                "limits::hazards::too_many_empty_answers",
                "limits::hazards::many_empty_answers_take_linear_time",
            ],
        },
        Fault {
            action: "60,000 calls with their results in reverse order (6 s frozen)",
            result: "400 `messages[1].tool_calls` (`CODEX_MAX_MESSAGES`); below the limit, the time is linear",
            tests: &["limits::hazards::too_many_calls", "limits::hazards::many_calls_take_linear_time"],
        },
        Fault {
            action: "a PNG of 30,000 × 30,000 pixels (3.5 MB), or of 100,000 × 100,000 of one bit: Codex at 4.2 GB, its worker lost; \
                     a GIF or JPEG whose second frame is larger than its first header says",
            result: "400 with the image's field (`CODEX_MAX_IMAGE_PIXELS`, 50 million each and twice as many together), from the \
                     headers alone; a photograph of 50 megapixels, a screenshot in 8K and eight photographs of 12 megapixels pass",
            tests: &[
                "limits::hazards::image_of_900_megapixels",
                "limits::hazards::image_of_10_gigapixels_of_one_bit",
                "service::validate::tests::validate_images_have_a_limit_of_pixels_each_and_together",
                "engine::image::pixels::tests::largest_frame_of_a_gif_may_exceed_its_screen",
                "engine::image::pixels::tests::largest_frame_of_a_jpeg_ignores_previews",
                "engine::image::pixels::tests::largest_frame_of_a_webp_ignores_its_scale",
            ],
        },
        Fault {
            action: "16.7 million empty messages of the contract in 33 MB (1.7 GB before admission); as many parts, calls, stop texts, \
                     pairs of metadata or values of a deprecated schema",
            result: "INVALID_ARGUMENT with the field; the encoded lists are counted before anything is decoded",
            tests: &[
                "limits::hazards::empty_messages_of_the_contract",
                "grpc::wire_counts::tests::check_counts_each_list_of_the_contract",
                "grpc::wire_counts::tests::check_counts_the_values_of_deprecated_schemas_at_any_depth",
                "grpc::wire_counts::tests::check_accepts_what_is_not_protobuf",
            ],
        },
        Fault {
            action: "a million empty messages in JSON (a neighbour's stream ended with `worker_lost`)",
            result: "400 `messages`, found while the body is read; the neighbour feels nothing",
            tests: &[
                "limits::hazards::empty_messages_of_json",
                "http::counted::tests::lists_are_counted_over_the_whole_body",
            ],
        },
        Fault {
            action: "33 MB of numbers or of unknown members in `tool_choice`, or millions of pairs of metadata",
            result: "400 with the member; unknown members are skipped, and the metadata has at most 16 pairs",
            tests: &[
                "limits::hazards::tool_choice_of_many_megabytes",
                "limits::hazards::tool_choice_of_many_members",
                "http::counted::tests::metadata_is_bounded",
            ],
        },
        Fault {
            action: "many large bodies at once, at both doors",
            result: "429 with Retry-After, or RESOURCE_EXHAUSTED, before the body is read (`CODEX_MAX_BODY_BYTES_TOTAL`, 256 MiB); \
                     bodies of up to 64 KiB still pass; the budget is free when Codex has the content, or the request has failed",
            tests: &[
                "limits::hazards::bodies_beyond_the_budget_are_refused_and_small_ones_pass",
                "limits::hazards::budget_is_free_while_turns_run",
                "context::body_budget::tests::large_bodies_leave_the_reserve_to_small_ones",
                "context::body_budget::tests::announced_bytes_that_do_not_arrive_hold_nothing",
            ],
        },
        Fault {
            action: "a long history within the limits: the worker is too busy to answer its pings and its other turns",
            result: "the history goes to the worker in pieces of 64 items or 256 KiB, and other requests pass between them; their order, \
                     and each result behind its call, are kept by the real CLI",
            tests: &[
                "limits::hazards::history_in_pieces_reaches_the_real_cli_in_order",
                "engine::app_server::turn::start::tests::pieces_keep_the_order_and_the_limits",
            ],
        },
    ],
}];
