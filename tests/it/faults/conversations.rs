//! Conversations that go on in a kept thread, and clients that use them in unexpected ways.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[Section {
    title: "Conversations that go on",
    faults: &[
        Fault {
            action: "clients edit, regenerate and branch conversations, leave, hit limits, change the model, the instructions, the tools or the format, and send answers back in another form",
            result: "the same answers, errors, finish reasons and usage as from a server that keeps no thread; the upstream gets the same items and settings, apart from reasoning",
            tests: &[
                "conversations::fidelity::random_conversations_are_answered_as_without_kept_threads",
                "conversations::upstream::random_conversations_reach_the_upstream_as_without_kept_threads",
            ],
        },
        Fault {
            action: "a request has the history of a conversation in another setting: caller, model, profile, sandbox, workspace, search, verbosity, service tier, cache key, instructions, tools or their choice",
            result: "a fresh thread, which sees nothing of the other; the conversation itself still goes on in its own",
            tests: &[
                "conversations::isolation::request_in_another_setting_runs_on_a_fresh_thread",
                "engine::app_server::turn::params::tests::setup_of_another_caller_or_setting_is_another_conversation",
                "engine::app_server::history::turn_cache::tests::get_with_another_caller_model_profile_or_text_returns_none",
            ],
        },
        Fault {
            action: "a client guesses or changes the answer, its author, or what came before",
            result: "a fresh thread with exactly what the client sends",
            tests: &["conversations::isolation::changed_history_runs_on_a_fresh_thread"],
        },
        Fault {
            action: "two requests continue one conversation at once; two clients have the same history",
            result: "one takes the thread, the others run on fresh ones; each has its own answer",
            tests: &[
                "conversations::isolation::branches_at_once_have_one_owner_of_the_thread",
                "conversations::isolation::clients_with_the_same_history_get_their_own_answers",
            ],
        },
        Fault {
            action: "results of a client's tools as text, nothing, several texts or pictures, in any order, with words of the user beside them",
            result: "the turn goes on in one model call, with every result and the words behind them",
            tests: &["conversations::parked::results_of_any_form_continue_the_turn_in_one_model_call"],
        },
        Fault {
            action: "results for some calls only",
            result: "400, as without kept threads; the turn waits for all of them",
            tests: &[
                "conversations::parked::request_with_some_results_is_refused_and_the_turn_waits_for_all",
            ],
        },
        Fault {
            action: "results after `CODEX_PARKED_CALL_SECONDS`, or after the loss of the worker",
            result: "the whole conversation on a fresh thread, with the same items and the reasoning",
            tests: &[
                "conversations::parked::late_results_are_replayed",
                "conversations::parked::results_after_the_loss_of_the_worker_are_replayed",
                "conversations::bounds::call_without_a_result_is_let_go_after_the_time_and_answered_by_a_replay",
                "conversations::lost::result_of_a_call_that_its_worker_lost_is_answered_by_a_replay",
            ],
        },
        Fault {
            action: "`kill -9` of a worker with 64 kept and 16 parked threads, under load",
            result: "running turns fail as before; every conversation goes on with the right answer on a fresh thread",
            tests: &["conversations::lost::lost_worker_with_kept_and_parked_threads_costs_time_only"],
        },
        Fault {
            action: "a command or a patch of the agent beside a call of the client",
            result: "the client gets its call at once; the command goes on, runs once, and its output reaches the model with the result",
            tests: &[
                "conversations::commands::command_beside_a_call_goes_on_while_the_turn_waits",
                "conversations::commands::patch_beside_a_parked_call_reaches_the_model",
            ],
        },
        Fault {
            action: "the agent leaves commands in the background, and its thread is kept",
            result: "they end with their turn; the temporary folder lives as long as the thread",
            tests: &[
                "conversations::commands::background_commands_end_with_their_turn_although_the_thread_is_kept",
                "conversations::commands::temporary_folder_lives_as_long_as_the_thread",
            ],
        },
        Fault {
            action: "SIGTERM while threads are kept, calls wait and a command runs beside one",
            result: "no process and no file is left",
            tests: &[
                "conversations::bounds::drain_with_kept_threads_and_parked_calls_leaves_nothing",
                "conversations::commands::drain_while_a_command_runs_beside_a_parked_call_leaves_no_process",
            ],
        },
        Fault {
            action: "more conversations than `CODEX_KEPT_THREADS`, larger ones than `CODEX_KEPT_THREADS_MAX_MB`, older ones than the limits, MCP servers in config.toml",
            result: "the longest unused threads are let go, and `GetStatus` tells how many and why; at most 4 with MCP servers",
            tests: &[
                "conversations::bounds::threads_beyond_the_number_are_let_go_in_the_order_of_their_last_use",
                "conversations::bounds::conversation_beyond_the_size_is_not_kept",
                "conversations::bounds::thread_without_a_request_is_let_go_after_the_time",
                "conversations::bounds::thread_is_let_go_at_its_maximum_age",
                "conversations::bounds::threads_with_mcp_servers_are_few",
            ],
        },
        Fault {
            action: "all slots are used by turns that wait for the results of their clients",
            result: "a turn that waits uses no slot",
            tests: &["conversations::parked::slot_is_free_while_a_turn_waits"],
        },
        Fault {
            action: "a client leaves while it gets calls",
            result: "no turn is left; the request begins again",
            tests: &["conversations::parked::client_that_leaves_while_it_gets_the_calls_leaves_no_turn"],
        },
        Fault {
            action: "a turn with a schema, a high effort or a routing token of the upstream, then one without",
            result: "the next turn has none of them",
            tests: &[
                "conversations::parked::format_and_effort_of_a_turn_do_not_stick",
                "conversations::parked::routing_token_of_the_upstream_is_sent_again_within_the_turn_only",
            ],
        },
    ],
}];
