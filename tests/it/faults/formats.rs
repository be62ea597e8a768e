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
            result: "deltas as the model makes them, equal to the answer that is not streamed. With agent or client tools the last message arrives in one piece",
            tests: &["formats::json_answer_of_the_chat_profile_is_streamed"],
        },
    ],
}];
