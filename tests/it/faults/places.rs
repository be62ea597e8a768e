//! Addresses, proxies and connections.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "Addresses, proxies and connections",
        faults: &[
            Fault {
                action: "a turn takes longer than the 600 s that the server and the official SDKs allow",
                result: "the default stays, because clients know it; README tells to set the SDK's `timeout` above `CODEX_TIMEOUT_SECONDS` or to stream. By reading: a test would take ten minutes",
                tests: &[],
            },
            Fault {
                action: "one connection without a token opens and resets 50,000 HTTP/2 streams per second, or many connections send requests as fast as they can",
                result: "others are served: above `CODEX_MAX_REQUEST_RATE` (1,000 per second of one address, after 4,096 at once) the connections of the address are read later",
                tests: &[
                    "transport::hazards::address_that_resets_streams_without_end_is_read_later",
                    "transport::request_rate::tests::paused_until_allows_a_burst_and_then_the_rate",
                ],
            },
            Fault {
                action: "the base URL lacks `/v1`, has it twice, has the path of an endpoint or additional slashes: `/chat/completions`, `/v1/v1/models`, `/v1/chat/completions/chat/completions`, `//v1/models`",
                result: "the same answer, without a redirect. Escaped paths are not rewritten and stay 404",
                tests: &[
                    "door::base_urls::wrong_base_url_gets_the_same_answer",
                    "door::base_urls::encoded_path_does_not_bypass_the_token",
                    "http::paths::tests::routed_path_of_a_wrong_base_url_is_the_route",
                    "http::paths::tests::routed_path_of_another_path_is_none",
                ],
            },
            Fault {
                action: "`GET /`, `/v1` or an unknown path",
                result: "name, version and routes as JSON, without a token; 404 that lists the routes",
                tests: &[
                    "door::base_urls::root_says_what_the_server_is_without_a_secret",
                    "door::protocols::unknown_route_is_refused_in_the_callers_protocol",
                ],
            },
            Fault {
                action: "a desktop application sends a valid token and `Origin: app://obsidian.md`, `tauri://localhost`, `vscode-webview://…` or `null`",
                result: "the answer, without CORS headers. Without a token on the server: 403 `origin_refused`",
                tests: &[
                    "trust::access::token_is_accepted_from_any_origin",
                    "trust::access::foreign_origin_without_a_token_is_refused",
                ],
            },
            Fault {
                action: "a balancer keeps a connection idle for a minute, then sends a request",
                result: "the answer: `CODEX_IDLE_TIMEOUT_SECONDS` (120), apart from the time limit of request heads",
                tests: &[
                    "transport::connections::idle_connection_outlives_the_header_timeout",
                    "transport::hazards::idle_connection_is_closed_and_a_busy_one_stays_open",
                ],
            },
            Fault {
                action: "an idle HTTP/2 connection answers and sends pings",
                result: "GOAWAY at the same limit; pings beside a stream are answered, however fast",
                tests: &[
                    "transport::connections::idle_http2_connection_that_answers_pings_is_closed",
                    "transport::connections::fast_pings_beside_a_stream_are_answered",
                ],
            },
            Fault {
                action: "thousands of silent or idle connections take all seats",
                result: "newcomers and health checks are served: silent connections, then idle ones, lose their seats; one address gets three quarters of the seats (`CODEX_MAX_CONNECTIONS_PER_PEER`)",
                tests: &[
                    "transport::connections::silent_connections_give_their_seats_to_newcomers",
                    "transport::connections::idle_http2_connections_give_their_seats_to_newcomers",
                    "transport::connections::busy_peer_at_its_limit_waits_while_another_peer_is_served",
                    "transport::seats::tests::try_take_of_a_full_table_evicts_silent_then_idle_connections",
                    "transport::seats::tests::try_take_beyond_the_limit_of_a_peer_affects_that_peer_alone",
                    "transport::seats::tests::evict_is_bounded_by_the_connections_that_still_close",
                ],
            },
            Fault {
                action: "`ulimit -n` is as small as the number of seats",
                result: "the soft limit is raised; if the hard limit is too small, fewer seats with a warning, also from `doctor`",
                tests: &[
                    "transport::open_files::tests::raise_limit_raises_the_soft_limit_only",
                    "transport::open_files::tests::fitting_connections_need_no_more_than_the_limit",
                ],
            },
            Fault {
                action: "connections of a mesh never end, so that a new server gets no load",
                result: "GOAWAY at `CODEX_CONNECTION_AGE_SECONDS` (off), with jitter; running requests finish within the grace",
                tests: &[
                    "transport::connections::connection_at_its_maximum_age_finishes_its_requests",
                    "transport::connections::requests_past_the_grace_of_the_maximum_age_are_cancelled",
                ],
            },
            Fault {
                action: "SIGTERM, then a connection of a client whose balancer has not noticed",
                result: "served for `CODEX_LAME_DUCK_SECONDS` (3) with both health checks not ready; all within the 30 seconds of Kubernetes",
                tests: &["commands::signals::request_after_sigterm_is_served_by_a_lame_duck"],
            },
            Fault {
                action: "a request body drips one byte at a time",
                result: "504 or DEADLINE_EXCEEDED at `CODEX_TIMEOUT_SECONDS` after the head",
                tests: &["door::slow_bodies::dripping_body_ends_at_the_time_limit_of_the_request"],
            },
            Fault {
                action: "the JDK offers `Upgrade: h2c`; a chunked body follows `Expect: 100-continue`",
                result: "the answer over HTTP/1.1",
                tests: &[
                    "door::slow_bodies::upgrade_offer_of_the_jdk_is_answered_in_http1",
                    "door::slow_bodies::chunked_body_after_expect_is_read",
                ],
            },
        ],
    },
    Section {
        title: "gRPC in a mesh",
        faults: &[
            Fault {
                action: "calls compressed with gzip, deflate or zstd",
                result: "answered, compressed if the client accepts it; `CODEX_MAX_BODY_BYTES` counts decompressed bytes",
                tests: &[
                    "door::mesh::compressed_calls_get_compressed_answers",
                    "door::mesh::decompressed_bytes_count_for_the_size_limit",
                ],
            },
            Fault {
                action: "30 kB of gzip, deflate or zstd that become 16.5 million empty messages, or 99 MB; the same behind a first message",
                result: "INVALID_ARGUMENT before anything is decoded, with the memory of one decompressed message, which counts for `CODEX_MAX_BODY_BYTES_TOTAL` as it grows. Messages behind the first are ignored undecoded. A zstd window beyond 8 MiB is refused",
                tests: &[
                    "limits::compressed::compressed_bombs_are_refused_within_bounds",
                    "limits::hazards::bodies_beyond_the_budget_are_refused_and_small_ones_pass",
                    "grpc::compression::tests::decompress_returns_the_message_up_to_the_limits",
                    "grpc::compression::tests::decompress_refuses_windows_beyond_8_mib",
                ],
            },
            Fault {
                action: "a truncated message, two messages in one call, an unknown encoding, an encoding that is not that of the bytes",
                result: "INVALID_ARGUMENT; the first message; UNIMPLEMENTED with `grpc-accept-encoding`; INVALID_ARGUMENT. Health and reflection accept no compression and say so",
                tests: &[
                    "limits::compressed::body_that_is_not_one_whole_message_is_answered_or_refused",
                    "limits::compressed::health_and_reflection_refuse_compressed_messages",
                    "grpc::compression::tests::decompress_refuses_what_is_truncated_or_has_another_encoding",
                ],
            },
            Fault {
                action: "`content-type: application/grpc-web`",
                result: "415; never run as plain gRPC",
                tests: &["door::mesh::grpc_web_is_not_run_as_grpc"],
            },
            Fault {
                action: "a client asks the reflection for the types of error details",
                result: "the descriptors of `google.rpc`",
                tests: &["door::mesh::reflection_knows_the_details_of_errors"],
            },
            Fault {
                action: "health `Watch` of an unknown service",
                result: "SERVICE_UNKNOWN, and the stream stays open",
                tests: &["door::mesh::health_watch_of_an_unknown_service_stays_open"],
            },
            Fault {
                action: "`Watch` 10,000 times over one connection, without a token",
                result: "16 streams, then RESOURCE_EXHAUSTED; the server has at most 16 × `CODEX_MAX_CONNECTIONS`, and one address 16 × `CODEX_MAX_CONNECTIONS_PER_PEER`, so there is no further limit; a connection with nothing but watches may lose its seat to a newcomer",
                tests: &[
                    "door::mesh::health_watches_of_a_connection_are_limited",
                    "transport::activity::tests::connection_with_only_health_watches_is_idle_but_busy",
                ],
            },
        ],
    },
    Section {
        title: "The operator at the doors",
        faults: &[
            Fault {
                action: "`CODEX_CORS_ORIGINS=*` without a token; a wildcard in `CODEX_ALLOWED_HOSTS`; `CODEX_GRPC_LISTEN` equal to the shared address",
                result: "the server does not start, with the reason of each",
                tests: &[
                    "config::exposure::tests::any_origin_needs_a_token",
                    "config::exposure::tests::allowed_hosts_have_no_wildcards",
                    "config::exposure::tests::grpc_address_must_differ_from_the_shared_address",
                ],
            },
            Fault {
                action: "a token of one letter, of one repeated letter, or from an example",
                result: "refused on another address than loopback, otherwise a warning",
                tests: &["config::exposure::tests::token_on_a_public_address_must_not_be_guessable"],
            },
            Fault {
                action: "somebody guesses tokens",
                result: "each 401 is counted and delayed per address (per /64 with IPv6), 20 ms more for each, up to a second; other addresses and valid tokens are not delayed",
                tests: &[
                    "auth::failures::tests::record_delays_each_peer_by_its_own_refusals",
                    "auth::failures::tests::record_of_many_peers_keeps_the_busiest",
                ],
            },
            Fault {
                action: "the operator looks for the origin of a request",
                result: "`peer` in the lines of requests and turns",
                tests: &["commands::signals::request_after_sigterm_is_served_by_a_lame_duck"],
            },
        ],
    },
];
