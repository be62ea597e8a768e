//! The messages of the app-server protocol that this crate sends or reads. Each line is one JSON object without a
//! `jsonrpc` member.
//!
//! The parser is tolerant, because the protocol grows with every Codex release. Unknown fields are ignored, and unknown
//! methods and variants become `Unknown`. A field that is missing or has another type gets its default.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::json;
use crate::engine::{Credits, LimitWindow, LimitsReading};

// ---------------------------------------------------------------------------------------------------------------------
// Envelope

/// A line from the app-server: a response, an error, a notification or a request.
#[derive(Debug, Deserialize)]
pub(crate) struct Incoming {
    /// The number of this crate's call in a response; any JSON value in a request of the app-server.
    pub(crate) id: Option<Value>,
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) params: Value,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<RpcError>,
}

/// The readable fields of a request whose arguments the model nested too deeply for `serde_json`.
#[derive(Deserialize)]
struct ShallowRequest {
    id: Value,
    method: String,
    params: ShallowParams,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShallowParams {
    thread_id: String,
    call_id: String,
}

impl Incoming {
    /// Parses a line. Returns `None` if the line is not a message of the protocol.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        if let Ok(incoming) = serde_json::from_slice(line) {
            return Some(incoming);
        }
        json::parse(line).and_then(|value| serde_json::from_value(value).ok()).or_else(|| {
            let ShallowRequest { id, method, params } = serde_json::from_slice(line).ok()?;
            let params = serde_json::to_value(params).ok()?;
            Some(Self { id: Some(id), method: Some(method), params, result: None, error: None })
        })
    }

    /// Returns the id of the thread that a notification or request belongs to.
    pub(crate) fn thread_id(&self) -> Option<&str> {
        let params = &self.params;
        params.get("threadId").or_else(|| params.get("thread")?.get("id"))?.as_str()
    }
}

/// The id of a request of the app-server. The response must repeat this number or string.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct RequestId(pub(crate) Value);

/// The error of a refused call.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default, deserialize_with = "tolerant")]
    data: RpcErrorData,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RpcErrorData {
    #[serde(default, deserialize_with = "tolerant")]
    input_error_code: String,
}

impl RpcError {
    /// `-32001`: the app-server has too many calls in its queue.
    pub(crate) const OVERLOADED: i64 = -32001;

    /// Returns whether the call may succeed a little later.
    pub(crate) const fn is_overloaded(&self) -> bool {
        self.code == Self::OVERLOADED
    }

    /// Returns whether the input of a turn exceeds what Codex accepts.
    pub(crate) fn is_input_too_large(&self) -> bool {
        self.data.input_error_code == "input_too_large"
    }
}

#[derive(Serialize)]
struct OutgoingCall<'a, P> {
    id: u64,
    method: &'static str,
    params: &'a P,
}

#[derive(Serialize)]
struct OutgoingNotification {
    method: &'static str,
}

#[derive(Serialize)]
struct OutgoingResult<'a, R> {
    id: &'a RequestId,
    result: &'a R,
}

#[derive(Serialize)]
struct OutgoingError<'a> {
    id: &'a RequestId,
    error: OutgoingErrorBody,
}

#[derive(Serialize)]
struct OutgoingErrorBody {
    code: i64,
    message: &'static str,
}

/// Formats a call as a line.
pub(crate) fn call_line<M: Method>(id: u64, params: &M) -> Vec<u8> {
    line(&OutgoingCall { id, method: M::NAME, params })
}

/// Formats a notification without parameters as a line.
pub(crate) fn notification_line(method: &'static str) -> Vec<u8> {
    line(&OutgoingNotification { method })
}

/// Formats the result of a request of the app-server as a line.
pub(crate) fn result_line(id: &RequestId, result: &impl Serialize) -> Vec<u8> {
    line(&OutgoingResult { id, result })
}

/// Formats the refusal of a request of the app-server as a line. `-32601` means "method not found".
pub(crate) fn refusal_line(id: &RequestId) -> Vec<u8> {
    let error = OutgoingErrorBody { code: -32601, message: "codex-api does not support this request" };
    line(&OutgoingError { id, error })
}

fn line(message: &impl Serialize) -> Vec<u8> {
    // Serialization fails only for maps whose keys are not strings. No message contains such a map.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls of this crate

/// The parameters of a call, and the type of the result.
pub(crate) trait Method: Serialize {
    /// The `method` member.
    const NAME: &'static str;
    /// The `result` member. A result of an unexpected shape becomes the default.
    type Result: DeserializeOwned + Default;
}

/// A result whose fields this crate does not read.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Empty {}

/// `initialize`: the first call on a connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Initialize<'a> {
    pub(crate) client_info: ClientInfo<'a>,
    pub(crate) capabilities: ClientCapabilities<'a>,
}

/// The name and version of this program, which Codex puts into its user agent.
#[derive(Debug, Serialize)]
pub(crate) struct ClientInfo<'a> {
    pub(crate) name: &'a str,
    pub(crate) title: &'a str,
    pub(crate) version: &'a str,
}

/// The features of the protocol that this program uses.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientCapabilities<'a> {
    pub(crate) experimental_api: bool,
    /// Notifications that the app-server must not send.
    pub(crate) opt_out_notification_methods: &'a [&'a str],
}

impl Method for Initialize<'_> {
    const NAME: &'static str = "initialize";
    type Result = Empty;
}

/// The notification that completes the handshake.
pub(crate) const INITIALIZED: &str = "initialized";

/// `thread/start`. The parameters are mostly configuration and are sent unchanged.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct StartThread<'a>(pub(crate) &'a Value);

impl Method for StartThread<'_> {
    const NAME: &'static str = "thread/start";
    type Result = ThreadStarted;
}

/// `thread/fork`: starts a thread with the items of a stored thread. Codex 0.169 ignores the parameters of `thread/start`
/// that a fork lacks: `dynamicTools`, `environments` and `experimentalRawEvents`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ForkThread<'a> {
    pub(crate) thread_id: &'a str,
    /// The file of the stored thread.
    pub(crate) path: &'a Path,
    /// The parameters of `thread/start`.
    #[serde(flatten)]
    pub(crate) params: &'a Value,
}

impl Method for ForkThread<'_> {
    const NAME: &'static str = "thread/fork";
    type Result = ThreadStarted;
}

/// `thread/read`: describes a thread, without its items.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReadThread<'a> {
    pub(crate) thread_id: &'a str,
}

impl Method for ReadThread<'_> {
    const NAME: &'static str = "thread/read";
    type Result = ThreadStarted;
}

/// The result of `thread/start`, `thread/fork` and `thread/read`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ThreadStarted {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) thread: Thread,
}

/// A thread, as the result of `thread/start`, `thread/fork` or `thread/read` describes it.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Thread {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) ephemeral: bool,
    /// The file that stores the thread.
    pub(crate) path: Option<Value>,
    /// `None` if the app-server does not report environments.
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) environments: Option<Vec<Value>>,
}

/// Returns the thread id in the result of a call, or `None` if the result contains no thread.
pub(crate) fn started_thread_id(result: &Value) -> Option<String> {
    #[derive(Deserialize)]
    struct Started {
        thread: Id,
    }
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    Started::deserialize(result).ok().map(|started| started.thread.id)
}

/// `thread/inject_items`: appends raw items to the history of a thread.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InjectItems<'a> {
    pub(crate) thread_id: &'a str,
    pub(crate) items: &'a [RawItem],
}

impl Method for InjectItems<'_> {
    const NAME: &'static str = "thread/inject_items";
    type Result = Empty;
}

/// `thread/unsubscribe`: releases a thread, which the app-server then drops from memory.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnsubscribeThread<'a> {
    pub(crate) thread_id: &'a str,
}

impl Method for UnsubscribeThread<'_> {
    const NAME: &'static str = "thread/unsubscribe";
    type Result = Empty;
}

/// `thread/loaded/list`: the cheapest call, used as a ping.
#[derive(Debug, Serialize)]
pub(crate) struct ListLoadedThreads {}

impl Method for ListLoadedThreads {
    const NAME: &'static str = "thread/loaded/list";
    type Result = Empty;
}

/// `turn/start`. The input is always empty, because the history is injected before.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StartTurn<'a> {
    pub(crate) thread_id: &'a str,
    pub(crate) input: [Value; 0],
    /// The environments of this and all later turns of the thread. `None` keeps those of the thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) environments: Option<[Value; 0]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<&'a str>,
    /// The JSON schema of the final message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output_schema: Option<Value>,
}

/// `thread/backgroundTerminals/clean`: kills the commands that outlived their call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CleanBackgroundTerminals<'a> {
    pub(crate) thread_id: &'a str,
}

impl Method for CleanBackgroundTerminals<'_> {
    const NAME: &'static str = "thread/backgroundTerminals/clean";
    type Result = Empty;
}

impl Method for StartTurn<'_> {
    const NAME: &'static str = "turn/start";
    type Result = TurnStarted;
}

/// The result of `turn/start`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct TurnStarted {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) turn: Turn,
}

/// `turn/interrupt`: requests the end of a turn, which `turn/completed` reports.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InterruptTurn<'a> {
    pub(crate) thread_id: &'a str,
    pub(crate) turn_id: &'a str,
}

impl Method for InterruptTurn<'_> {
    const NAME: &'static str = "turn/interrupt";
    type Result = Empty;
}

/// `model/list`: one page of the CLI's models.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ListModels {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
}

impl Method for ListModels {
    const NAME: &'static str = "model/list";
    type Result = ModelPage;
}

/// The result of `model/list`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelPage {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) data: Vec<ModelEntry>,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) next_cursor: Option<String>,
}

/// A model in a [`ModelPage`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelEntry {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) model: String,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) is_default: bool,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) supported_reasoning_efforts: Vec<ReasoningEffort>,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) input_modalities: Vec<String>,
}

/// A reasoning effort that a model supports.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReasoningEffort {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) reasoning_effort: String,
}

/// A method that no app-server has. The refusal lists all methods of the app-server.
#[derive(Debug, Serialize)]
pub(crate) struct UnknownMethod {}

impl Method for UnknownMethod {
    const NAME: &'static str = "codex-api/which";
    type Result = Empty;
}

// ---------------------------------------------------------------------------------------------------------------------
// Requests of the app-server

/// A request of the app-server.
#[derive(Debug)]
pub(crate) enum ServerRequest {
    /// `item/tool/call`: requests the result of a client tool. `None` if the parameters are unusable.
    ToolCall(Option<ToolCall>),
    /// `item/*/requestApproval`: approval of a command or file change.
    Approval,
    /// `applyPatchApproval`, `execCommandApproval`: approval requests in the first version of the protocol.
    LegacyApproval,
    /// `mcpServer/elicitation/request`: a question of an MCP server to the user.
    Elicitation,
    /// A request that this crate does not support.
    Unknown,
}

/// The parameters of `item/tool/call`, with the id of the request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolCall {
    /// The id that the result must repeat.
    #[serde(skip)]
    pub(crate) request: RequestId,
    pub(crate) call_id: String,
}

impl ServerRequest {
    /// Parses a request from its members.
    pub(crate) fn parse(id: RequestId, method: &str, params: Value) -> Self {
        match method {
            "item/tool/call" => {
                let call = serde_json::from_value::<ToolCall>(params).ok();
                Self::ToolCall(call.map(|call| ToolCall { request: id, ..call }))
            }
            "item/commandExecution/requestApproval" | "item/fileChange/requestApproval" => Self::Approval,
            "applyPatchApproval" | "execCommandApproval" => Self::LegacyApproval,
            "mcpServer/elicitation/request" => Self::Elicitation,
            _ => Self::Unknown,
        }
    }
}

/// The result of an approval request.
#[derive(Debug, Serialize)]
pub(crate) struct ApprovalResult {
    decision: &'static str,
}

impl ApprovalResult {
    /// Refuses an [`Approval`](ServerRequest::Approval).
    pub(crate) const DECLINE: Self = Self { decision: "decline" };
    /// Refuses a [`LegacyApproval`](ServerRequest::LegacyApproval).
    pub(crate) const DENIED: Self = Self { decision: "denied" };
}

/// The result of an elicitation.
#[derive(Debug, Serialize)]
pub(crate) struct ElicitationResult {
    action: &'static str,
}

impl ElicitationResult {
    /// Refuses to answer.
    pub(crate) const DECLINE: Self = Self { action: "decline" };
}

/// The result of a client tool, for the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolCallResult {
    pub(crate) success: bool,
    pub(crate) content_items: Vec<ToolCallContent>,
}

/// A part of a [`ToolCallResult`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum ToolCallContent {
    /// Text.
    InputText {
        /// The text.
        text: String,
    },
    /// An image.
    #[serde(rename_all = "camelCase")]
    InputImage {
        /// A `data:` URL.
        image_url: String,
    },
}

impl From<ContentPart> for ToolCallContent {
    fn from(part: ContentPart) -> Self {
        match part {
            ContentPart::InputText(text) | ContentPart::OutputText(text) => Self::InputText { text },
            ContentPart::InputImage(image_url) => Self::InputImage { image_url },
        }
    }
}

impl ToolCallResult {
    /// Creates the result of a call that failed.
    pub(crate) fn failure(text: String) -> Self {
        Self { success: false, content_items: vec![ToolCallContent::InputText { text }] }
    }

    /// Creates the result of a call. Codex passes one text on as a string and everything else as a list.
    pub(crate) const fn success(content_items: Vec<ToolCallContent>) -> Self {
        Self { success: true, content_items }
    }

    /// Returns the size of the content in bytes.
    pub(crate) fn size(&self) -> usize {
        let sizes = self.content_items.iter().map(|content| match content {
            ToolCallContent::InputText { text } => text.len(),
            ToolCallContent::InputImage { image_url } => image_url.len(),
        });
        sizes.sum()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Notifications of the app-server. `delta.rs` reads the pieces of text.

/// A notification of the app-server about one thread.
#[derive(Debug)]
pub(crate) enum Notification {
    /// `item/started`
    ItemStarted(Box<ThreadItem>),
    /// `item/completed`
    ItemCompleted(Box<ThreadItem>),
    /// `item/reasoning/summaryPartAdded`
    ReasoningSummaryPartAdded(SummaryPart),
    /// `turn/plan/updated`
    PlanUpdated(PlanUpdate),
    /// `warning`
    Warning(Warning),
    /// `error`
    Error(ErrorReport),
    /// `rawResponseItem/completed`
    RawResponseItemCompleted(RawResponseItem),
    /// `rawResponse/completed`
    RawResponseCompleted(TokenUsage),
    /// `thread/tokenUsage/updated`: the usage of the whole thread.
    ThreadUsageUpdated(TokenUsage),
    /// `turn/completed`
    TurnCompleted(Box<Turn>),
    /// A notification that this crate does not read. Its arrival still shows that the turn makes progress.
    Unknown,
}

#[derive(Default, Deserialize)]
struct ItemParams {
    #[serde(default)]
    item: ThreadItem,
}

#[derive(Default, Deserialize)]
struct TurnParams {
    #[serde(default, deserialize_with = "tolerant")]
    turn: Turn,
}

#[derive(Default, Deserialize)]
struct UsageParams {
    #[serde(default, deserialize_with = "tolerant")]
    usage: TokenUsage,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThreadUsageParams {
    #[serde(default, deserialize_with = "tolerant")]
    token_usage: ThreadUsage,
}

#[derive(Default, Deserialize)]
struct ThreadUsage {
    #[serde(default, deserialize_with = "tolerant")]
    total: TokenUsage,
}

impl Notification {
    /// Parses a notification from its members.
    pub(crate) fn parse(method: &str, params: Value) -> Self {
        match method {
            "item/started" => Self::ItemStarted(Box::new(read::<ItemParams>(params).item)),
            "item/completed" => Self::ItemCompleted(Box::new(read::<ItemParams>(params).item)),
            "item/reasoning/summaryPartAdded" => Self::ReasoningSummaryPartAdded(read(params)),
            "turn/plan/updated" => Self::PlanUpdated(read(params)),
            "warning" => Self::Warning(read(params)),
            "error" => Self::Error(read(params)),
            "rawResponseItem/completed" => Self::RawResponseItemCompleted(read(params)),
            "rawResponse/completed" => Self::RawResponseCompleted(read::<UsageParams>(params).usage),
            "thread/tokenUsage/updated" => {
                Self::ThreadUsageUpdated(read::<ThreadUsageParams>(params).token_usage.total)
            }
            "turn/completed" => Self::TurnCompleted(Box::new(read::<TurnParams>(params).turn)),
            _ => Self::Unknown,
        }
    }
}

/// The notification about the limits of the account, which belongs to no thread.
pub(crate) const RATE_LIMITS_UPDATED: &str = "account/rateLimits/updated";

/// Maximum length of a text about the account, in characters.
const MAX_ACCOUNT_TEXT: usize = 64;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RateLimitsParams {
    #[serde(default, deserialize_with = "tolerant")]
    rate_limits: RateLimitSnapshot,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RateLimitSnapshot {
    #[serde(default, deserialize_with = "tolerant")]
    limit_id: String,
    #[serde(default, deserialize_with = "tolerant")]
    primary: Option<RateLimitWindow>,
    #[serde(default, deserialize_with = "tolerant")]
    secondary: Option<RateLimitWindow>,
    #[serde(default, deserialize_with = "tolerant")]
    credits: Option<CreditsSnapshot>,
    #[serde(default, deserialize_with = "tolerant")]
    plan_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RateLimitWindow {
    #[serde(default, deserialize_with = "tolerant")]
    used_percent: Option<f64>,
    #[serde(default, deserialize_with = "tolerant")]
    window_duration_mins: Option<u32>,
    /// Seconds since 1970 UTC.
    #[serde(default, deserialize_with = "tolerant")]
    resets_at: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreditsSnapshot {
    #[serde(default, deserialize_with = "tolerant")]
    has_credits: bool,
    #[serde(default, deserialize_with = "tolerant")]
    unlimited: bool,
    #[serde(default, deserialize_with = "tolerant")]
    balance: String,
}

/// Reads the parameters of [`RATE_LIMITS_UPDATED`]. A window without its used part counts as missing.
pub(crate) fn limits_reading(params: Value) -> LimitsReading {
    let snapshot = read::<RateLimitsParams>(params).rate_limits;
    let bounded = |text: &str| text.chars().take(MAX_ACCOUNT_TEXT).collect::<String>();
    // Codex itself calls a limit without an id so.
    let id = if snapshot.limit_id.is_empty() { "codex" } else { &snapshot.limit_id };
    let window = |window: RateLimitWindow| {
        let minutes = window.window_duration_mins;
        let resets_at = window.resets_at.filter(|seconds| *seconds > 0);
        Some(LimitWindow {
            limit_id: bounded(id),
            used_percent: window.used_percent?,
            duration: minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60)),
            resets_at: resets_at.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at.into())),
        })
    };
    LimitsReading {
        plan: bounded(&snapshot.plan_type),
        windows: [snapshot.primary, snapshot.secondary].into_iter().flatten().filter_map(window).collect(),
        credits: snapshot.credits.map(|credits| Credits {
            has_credits: credits.has_credits,
            unlimited: credits.unlimited,
            balance: bounded(&credits.balance),
        }),
    }
}

/// The parameters of `item/reasoning/summaryPartAdded`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SummaryPart {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) summary_index: u64,
}

/// The parameters of `turn/plan/updated`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PlanUpdate {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) plan: Vec<PlanStep>,
}

/// A step of the agent's plan.
#[derive(Debug, Deserialize)]
pub(crate) struct PlanStep {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) step: String,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) status: ItemStatus,
}

/// The parameters of `warning`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Warning {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) message: String,
}

/// The parameters of `error`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorReport {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) error: TurnError,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) will_retry: bool,
}

/// A turn.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Turn {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) status: TurnStatus,
    /// Set if the status is [`Failed`](TurnStatus::Failed).
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) error: TurnError,
}

/// The state of a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum TurnStatus {
    Completed,
    Interrupted,
    Failed,
    #[default]
    #[serde(other)]
    Unknown,
}

/// The error of a turn or of an attempt at a response.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TurnError {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) message: String,
    /// The cause while Codex retries; `message` then only reports the retry.
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) additional_details: String,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) codex_error_info: CodexErrorInfo,
}

/// The type of a [`TurnError`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum CodexErrorInfo {
    ContextWindowExceeded,
    ModelNotFound,
    RateLimitExceeded,
    UsageLimitExceeded,
    InternalServerError,
    ServerOverloaded,
    CyberPolicy,
    Unauthorized,
    HttpConnectionFailed(UpstreamStatus),
    ResponseTooManyFailedAttempts(UpstreamStatus),
    ResponseStreamDisconnected(UpstreamStatus),
    ResponseStreamConnectionFailed(UpstreamStatus),
    #[default]
    Unknown,
}

/// The HTTP status of the upstream, if a response arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpstreamStatus {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) http_status_code: Option<u16>,
}

/// Token counts of one response or of a whole thread.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenUsage {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) input_tokens: u64,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) cached_input_tokens: u64,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) output_tokens: u64,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) reasoning_output_tokens: u64,
}

/// An action or a message of the agent, in Codex's own terms.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(crate) struct ThreadItem {
    pub(crate) id: String,
    pub(crate) status: ItemStatus,
    pub(crate) kind: ThreadItemKind,
}

#[derive(Default, Deserialize)]
struct ItemHeader {
    #[serde(default, deserialize_with = "tolerant")]
    id: String,
    #[serde(default, deserialize_with = "tolerant")]
    status: ItemStatus,
}

impl From<Value> for ThreadItem {
    fn from(item: Value) -> Self {
        let ItemHeader { id, status } = ItemHeader::deserialize(&item).unwrap_or_default();
        Self { id, status, kind: read(item) }
    }
}

/// The state of a [`ThreadItem`] or [`PlanStep`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ItemStatus {
    InProgress,
    Completed,
    Failed,
    Declined,
    #[default]
    #[serde(other)]
    Unknown,
}

/// What a message of the model is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessagePhase {
    /// The last message of the turn.
    FinalAnswer,
    /// Another message, or the model does not say.
    #[default]
    #[serde(other)]
    Other,
}

/// The kind of a [`ThreadItem`], with the fields that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum ThreadItemKind {
    AgentMessage {
        #[serde(default, deserialize_with = "tolerant")]
        text: String,
        /// Known at the start of the message, if the model names it.
        #[serde(default, deserialize_with = "tolerant")]
        phase: MessagePhase,
    },
    ContextCompaction,
    Reasoning,
    UserMessage,
    DynamicToolCall,
    HookPrompt,
    FunctionCallOutput,
    CommandExecution {
        #[serde(default, deserialize_with = "tolerant")]
        command: String,
        #[serde(default, deserialize_with = "tolerant")]
        aggregated_output: String,
        #[serde(default, deserialize_with = "tolerant")]
        exit_code: Option<i32>,
    },
    FileChange {
        #[serde(default, deserialize_with = "tolerant")]
        changes: Vec<FileChange>,
    },
    McpToolCall(Box<McpToolCall>),
    WebSearch {
        #[serde(default, deserialize_with = "tolerant")]
        query: String,
    },
    Plan {
        #[serde(default, deserialize_with = "tolerant")]
        text: String,
    },
    #[default]
    #[serde(other)]
    Unknown,
}

/// A call of an MCP tool.
#[derive(Debug, Deserialize)]
pub(crate) struct McpToolCall {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) server: String,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) tool: String,
    #[serde(default)]
    pub(crate) arguments: Value,
    #[serde(default)]
    pub(crate) result: Value,
    #[serde(default)]
    pub(crate) error: McpError,
}

/// A changed file.
#[derive(Debug, Deserialize)]
pub(crate) struct FileChange {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) path: String,
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) kind: FileChangeKind,
}

/// The kind of a change: an object with a `type`, or a string in older releases.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum FileChangeKind {
    /// `{"type": "update", …}`
    Object {
        /// The kind.
        #[serde(rename = "type")]
        kind: String,
    },
    /// `"update"`
    Name(String),
}

impl Default for FileChangeKind {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

impl FileChangeKind {
    /// Returns the name of the kind.
    pub(crate) fn into_name(self) -> String {
        match self {
            Self::Object { kind: name } | Self::Name(name) => name,
        }
    }
}

/// The error of an MCP tool call: usually an object with a message.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct McpError(Value);

impl McpError {
    /// Returns the message, or the whole error as JSON. Returns an empty string if the call did not fail.
    pub(crate) fn into_text(self) -> String {
        match self.0.get("message") {
            Some(Value::String(message)) => message.clone(),
            _ if self.0.is_null() => String::new(),
            _ => self.0.to_string(),
        }
    }
}

/// The parameters of `rawResponseItem/completed`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawResponseItem {
    #[serde(default, deserialize_with = "tolerant")]
    pub(crate) turn_id: String,
    #[serde(default)]
    pub(crate) item: RawItem,
}

/// An item of the Responses API. The JSON is kept without loss, because a later turn sends the item back to Codex.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RawItem(Value);

impl RawItem {
    /// Kinds that carry the output of a tool.
    pub(crate) const OUTPUT_KINDS: [&'static str; 2] = ["function_call_output", "custom_tool_call_output"];

    /// Creates the output of a tool.
    pub(crate) fn output_of_call(kind: &str, call_id: &str, output: &str) -> Self {
        Self(serde_json::json!({"type": kind, "call_id": call_id, "output": output}))
    }

    /// Creates a message.
    pub(crate) fn message(role: &str, content: Vec<ContentPart>) -> Self {
        let content = content.into_iter().map(ContentPart::into_value).collect();
        Self::object([("type", "message".into()), ("role", role.into()), ("content", content)])
    }

    /// Creates a call of a function.
    pub(crate) fn function_call(call_id: &str, name: &str, arguments: &str) -> Self {
        Self::object([
            ("type", "function_call".into()),
            ("name", name.into()),
            ("arguments", arguments.into()),
            ("call_id", call_id.into()),
        ])
    }

    /// Creates the output of a function.
    pub(crate) fn function_call_output(call_id: &str, output: FunctionOutput) -> Self {
        let output = match output {
            FunctionOutput::Text(text) => text.into(),
            FunctionOutput::Content(parts) => parts.into_iter().map(ContentPart::into_value).collect(),
        };
        Self::object([
            ("type", "function_call_output".into()),
            ("call_id", call_id.into()),
            ("output", output),
        ])
    }

    /// Returns the `type`, or an empty string.
    pub(crate) fn kind(&self) -> &str {
        self.text("type").unwrap_or_default()
    }

    /// Returns the id of the call that the item makes or answers.
    pub(crate) fn call_id(&self) -> Option<&str> {
        self.text("call_id")
    }

    /// Returns the role of a message.
    pub(crate) fn role(&self) -> Option<&str> {
        self.text("role")
    }

    /// Returns whether a message has content.
    pub(crate) fn has_content(&self) -> bool {
        self.0.get("content").is_none_or(|content| content.as_array().is_none_or(|parts| !parts.is_empty()))
    }

    /// Returns the texts of a message's content.
    pub(crate) fn content_texts(&self) -> impl Iterator<Item = &str> {
        let parts = self.0.get("content").and_then(Value::as_array).into_iter().flatten();
        parts.filter_map(|part| part.get("text")?.as_str())
    }

    /// Returns whether reasoning can be injected into another thread.
    pub(crate) fn has_encrypted_content(&self) -> bool {
        self.text("encrypted_content").is_some()
    }

    /// Returns the name of the called tool.
    pub(crate) fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// Returns the namespace of the called tool.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.text("namespace")
    }

    /// Returns the arguments of a function call, as the JSON text that the model generated.
    pub(crate) fn arguments(&self) -> Option<&str> {
        self.text("arguments")
    }

    /// Returns the output of a tool, if the output is plain text.
    pub(crate) fn output(&self) -> Option<&str> {
        self.text("output")
    }

    /// Replaces the id of the call. Does nothing if the item is not an object.
    pub(crate) fn set_call_id(&mut self, call_id: &str) {
        self.set("call_id", call_id);
    }

    /// Replaces the name of the called tool. Does nothing if the item is not an object.
    pub(crate) fn set_name(&mut self, name: &str) {
        self.set("name", name);
    }

    /// Replaces the output of a tool. Does nothing if the item is not an object.
    pub(crate) fn set_output(&mut self, output: &str) {
        self.set("output", output);
    }

    /// Removes the fields for which `keep` returns `false`.
    pub(crate) fn retain_fields(&mut self, mut keep: impl FnMut(&str, &Value) -> bool) {
        if let Value::Object(fields) = &mut self.0 {
            fields.retain(|name, value| keep(name, value));
        }
    }

    /// Returns the item as JSON.
    pub(crate) const fn as_value(&self) -> &Value {
        &self.0
    }

    /// Creates an object without copying the values, which may be images of many megabytes.
    fn object<const N: usize>(fields: [(&str, Value); N]) -> Self {
        Self(Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    fn set(&mut self, field: &str, text: &str) {
        if let Value::Object(fields) = &mut self.0 {
            fields.insert(field.to_owned(), text.into());
        }
    }
}

/// A part of the content of a [`RawItem`].
#[derive(Debug)]
pub(crate) enum ContentPart {
    /// Text for the model.
    InputText(String),
    /// Text of the model.
    OutputText(String),
    /// An image for the model, as a `data:` URL.
    InputImage(String),
}

impl ContentPart {
    fn into_value(self) -> Value {
        let (kind, field, text) = match self {
            Self::InputText(text) => ("input_text", "text", text),
            Self::OutputText(text) => ("output_text", "text", text),
            Self::InputImage(url) => ("input_image", "image_url", url),
        };
        RawItem::object([("type", kind.into()), (field, text.into())]).0
    }
}

/// The output of a function, for [`RawItem::function_call_output`].
#[derive(Debug)]
pub(crate) enum FunctionOutput {
    /// One text.
    Text(String),
    /// Several parts.
    Content(Vec<ContentPart>),
}

impl From<Value> for RawItem {
    fn from(item: Value) -> Self {
        Self(item)
    }
}

// ---------------------------------------------------------------------------------------------------------------------

fn read<T: DeserializeOwned + Default>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_default()
}

/// Reads a field. A value of another type counts as missing.
fn tolerant<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Value::deserialize(deserializer).map(read)
}

#[cfg(test)]
mod tests;
