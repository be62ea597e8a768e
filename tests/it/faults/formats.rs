//! Schemas and JSON answers of real clients.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[Section {
    title: "Schemas and JSON answers",
    faults: &[
        Fault {
            action: "`json_schema` without `strict: true`: optional properties, open objects, recursion, an enum of numbers, a root that is no object",
            result: "the upstream gets the equivalent strict schema, and the answer matches the client's schema. With `strict: true`, a 400 of the upstream stays a 400",
            tests: &[
                "formats::loose_schema_is_accepted_and_its_answer_matches_it",
                "service::json_answer::strict_form::tests::strict_form_of_a_loose_object_is_closed_and_its_optional_properties_are_nullable",
                "service::json_answer::strict_form::tests::answer_lacks_the_nulls_of_optional_properties_only",
                "service::json_answer::strict_form::tests::root_that_is_no_object_is_wrapped_and_unwrapped",
                "service::json_answer::strict_form::tests::recursion_at_the_root_and_an_enum_of_numbers_have_a_strict_form",
                "service::json_answer::strict_form::tests::answer_is_independent_of_deltas_and_lacks_optional_nulls",
            ],
        },
        Fault {
            action: "`json_schema` without `strict: true` and without a strict equivalent, such as an open map",
            result: "an instruction asks for the schema and the server validates the answer; at most two repeats, and none after an own tool of the agent began; then `TURN_FAILED` with the mismatch. The text arrives in one piece",
            tests: &[
                "formats::open_map_is_validated_and_asked_for_again",
                "service::json_answer::strict_form::tests::schemas_without_an_unambiguous_equivalent_have_no_strict_form",
                "service::json_answer::tests::plan_of_an_open_map_asks_by_instruction_and_validates",
            ],
        },
        Fault {
            action: "`json_object`; the model writes a fence or prose around the object, or no object",
            result: "the object alone; without an object the model is asked again, with the same limits",
            tests: &[
                "formats::json_mode_answers_with_the_object_alone",
                "service::json_answer::strict_form::tests::object_in_a_fence_is_found_unchanged",
            ],
        },
        Fault {
            action: "a JSON format with `stream: true`, the profile `chat` and no tools",
            result: "deltas as the model makes them, equal to the answer that is not streamed",
            tests: &["formats::json_answer_of_the_chat_profile_is_streamed"],
        },
        Fault {
            action: "a JSON format with `stream: true`, the profile `agent` or client tools",
            result: "the app-server names the phase of a message at its start: `final_answer` streams at once, earlier messages are items. Without a phase, and with `exec`, which has none, the last message arrives in one piece",
            tests: &[
                "formats::json_answer_streams_as_soon_as_its_phase_is_known",
                "service::choice::tests::json_message_that_is_final_streams_at_once",
                "service::choice::tests::final_message_without_an_answer_gives_way_to_the_next_one",
                "engine::app_server::translate::tests::message_is_final_if_its_phase_says_so_at_its_start",
            ],
        },
        Fault {
            action: "prose with `{}`, `{x}` or `{\"` before the object of a JSON answer",
            result: "a stream holds the text back until an object with a key and a valid value begins; `{}` is the answer only if no such object follows. An answer that is not streamed is the longest object behind the prose",
            tests: &[
                "service::json_answer::tests::stream_holds_text_back_until_an_object_begins",
                "service::json_answer::tests::whole_answer_is_the_longest_object_behind_prose",
                "service::json_answer::tests::search_for_an_object_in_a_hostile_text_ends_soon",
            ],
        },
        Fault {
            action: "a JSON answer that the server asks for again",
            result: "the usage is the sum of all turns; no repeat after an own tool of the agent began",
            tests: &[
                "formats::usage_of_a_repeated_answer_is_the_sum_of_all_turns",
                "formats::answer_after_a_command_is_not_asked_for_again",
            ],
        },
        Fault {
            action: "schemas as pydantic, instructor and zod write them: `default: null`, `Literal` of numbers, open maps, `$defs`, `format`, bounds, `pattern`, `discriminator`, `prefixItems`, `{\"type\": \"object\"}` alone",
            result: "an answer that matches the client's schema. A schema that allows any object is the JSON mode, which streams",
            tests: &[
                "formats::schemas_of_client_libraries_are_answered",
                "service::json_answer::tests::plan_of_a_schema_of_any_object_is_json_mode",
            ],
        },
        Fault {
            action: "a schema of 30,000 properties, 10,000 levels or 300 costly patterns, cycles of `$ref`, more than 1 MiB",
            result: "prepared off the runtime, under the deadline and within limits; over a limit 400 that names `response_format.json_schema.schema`",
            tests: &[
                "formats::pathological_schema_does_not_freeze_the_server",
                "service::json_answer::strict_form::tests::strict_form_of_a_pathological_schema_ends_soon",
            ],
        },
    ],
}];
