//! What the operator, the agent and other processes of the host do.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[Section {
    title: "The host of the server",
    faults: &[
        Fault {
            action: "`workspace-write`, and a variable of the loader or of an interpreter (`LD_LIBRARY_PATH`, `LD_PRELOAD`, `NODE_OPTIONS`, `BASH_ENV`, `PYTHONPATH`, `SSL_CERT_DIR`, `GIT_CONFIG_GLOBAL` and more) has a path in a writable folder",
            result: "the start is refused: a command could put a library there, which the server's own processes would load outside of the sandbox",
            tests: &[
                "engine::cli::writable_roots::tests::check_of_variables_that_programs_load_code_from_fails",
            ],
        },
        Fault {
            action: "`workspace-write`, and the workspace, a folder of `CODEX_ADD_DIRS` or a `writable_roots` of config.toml is at, above or below the CLI, its package or interpreter, this executable, `.env` (also one that a command could create), the CLI's home, `HOME`, `TMPDIR`, a folder of `PATH`, the trusted certificates or a program of config.toml; also behind links",
            result: "the start is refused with exit code 64 and `doctor` fails, with the folder, what it holds and the remedy; no process of the CLI starts",
            tests: &[
                "trust::writable_folders::start_with_something_used_in_a_writable_folder_is_refused",
                "engine::cli::writable_roots::tests::check_with_something_used_below_a_writable_folder_fails",
                "engine::cli::writable_roots::tests::check_with_a_writable_folder_inside_something_used_fails",
                "engine::cli::writable_roots::tests::check_of_files_that_do_not_exist_yet_fails",
                "engine::cli::writable_roots::tests::check_follows_links_in_both_directions",
                "engine::cli::writable_roots::tests::check_of_a_script_includes_its_interpreter",
                "engine::cli::writable_roots::tests::check_of_programs_in_the_configuration_fails",
                "engine::cli::writable_roots::tests::check_of_a_workspace_that_a_command_can_replace_fails",
            ],
        },
        Fault {
            action: "`workspace-write` with a workspace of its own; `read-only` in the current folder",
            result: "the server starts as ever",
            tests: &[
                "trust::writable_folders::start_with_a_workspace_of_its_own_or_without_writing_succeeds",
                "engine::cli::writable_roots::tests::check_with_a_workspace_of_its_own_passes",
            ],
        },
        Fault {
            action: "while the server runs, the CLI becomes a program in a writable folder",
            result: "the program is never started; not ready, with a fixed reason; the log names the program; another CLI is used again without a restart",
            tests: &[
                "trust::writable_folders::program_that_appears_in_a_writable_folder_is_not_started",
                "trust::writable_folders::program_that_appears_in_a_writable_folder_is_not_started_over_the_real_cli",
            ],
        },
        Fault {
            action: "`scripts/serve.sh` with `workspace-write` and no workspace: the current folder holds `.tools/`, `target/` and `.env`",
            result: "the agent works in a private folder below `~/.local/share/codex-api`",
            tests: &["trust::writable_folders::serve_script_gives_a_writing_agent_a_workspace_of_its_own"],
        },
        Fault {
            action: "the workspace is `/` or contains the home, is writable for every user or belongs to another one, or holds `.env`, whose secrets commands can read; `danger-full-access`",
            result: "a warning of `doctor` and in the log, with the reason and the remedy",
            tests: &[
                "trust::writable_folders::risky_workspace_is_a_warning_of_doctor_and_log",
                "engine::cli::writable_roots::tests::examine_of_risky_workspaces_warns",
            ],
        },
        Fault {
            action: "a command of another turn of exec looks for images and schemas of its neighbours",
            result: "it finds none: the folder is in memory, which the sandbox of Codex hides, cannot be listed, and holds the client's files only until the CLI has read them. Without a sandbox, or without room in memory for a command that knows the name, the same user can read them for that time",
            tests: &[
                "trust::sandbox::command_cannot_read_files_of_another_turn_of_exec",
                "trust::sandbox::files_of_the_client_are_removed_at_the_first_item",
                "trust::sandbox::files_of_a_turn_have_private_permissions",
                "engine::process::private_dir::tests::private_dir_is_private_unlistable_and_removed",
            ],
        },
        Fault {
            action: "`kill -9` of the server and its supervisors",
            result: "the next start removes their private folders, of both engines, and keeps those of running servers",
            tests: &[
                "workers::leftovers::folders_of_a_killed_server_are_removed_at_the_next_start",
                "engine::process::private_dir::tests::remove_orphaned_with_running_servers_keeps_their_folders",
            ],
        },
        Fault {
            action: "a command leaves folders without write permission, or thousands of folders in each other, in the turn's folder",
            result: "they are removed with the turn, and links are not followed",
            tests: &[
                "trust::sandbox::read_only_subfolders_of_a_turn_are_removed",
                "engine::process::private_dir::tests::remove_tree_with_folders_without_permissions_removes_them_and_keeps_link_targets",
                "engine::process::private_dir::tests::remove_tree_of_great_depth_removes_it",
            ],
        },
        Fault {
            action: "a broken config.toml, a CLI that is missing or prints something else, a home or workspace that is missing; anybody asks `/healthz`, `GetStatus` or for a turn",
            result: "a fixed sentence with the remedy, without paths and values. Log and `doctor` have the mistake and its line, without the quoted line and without values",
            tests: &[
                "trust::reasons::broken_configuration_is_a_fixed_reason",
                "trust::reasons::broken_configuration_is_a_fixed_reason_over_the_real_cli",
                "trust::reasons::missing_things_are_a_fixed_reason",
                "workers::start::start_failure_reports_a_fixed_sentence",
                "engine::app_server::worker::error::tests::message_of_an_exit_has_no_output_and_its_detail_has_no_value",
                "engine::cli::scrub::tests::without_values_keeps_the_mistake_and_its_place",
                "engine::cli::user_config::tests::read_after_a_change_returns_the_new_content",
            ],
        },
        Fault {
            action: "`CODEX_CI` and other variables of Codex, also unknown ones within two letters of a setting",
            result: "they reach the CLI unchanged; at most a warning. Only what is probably a misspelt token is kept from it",
            tests: &[
                "config::tests::load_with_variables_of_codex_passes_them_on_without_a_warning",
                "config::tests::load_inside_the_sandbox_of_codex_ignores_its_mark",
                "config::tests::load_with_a_misspelt_token_keeps_it_from_the_cli",
                "config::settings::tests::closest_setting_of_typing_errors_only_returns_a_name",
            ],
        },
        Fault {
            action: "`.env` with a comment after a tab or any other white space, with `export` and a tab, or with a byte order mark",
            result: "the value ends before the comment",
            tests: &[
                "config::dotenv::tests::parse_comment_after_any_white_space_ends_the_value",
                "config::dotenv::tests::parse_export_and_byte_order_mark_are_skipped",
            ],
        },
    ],
}];
