//! The parameters for starting a turn. They are dropped at the first output of the turn, because until then the turn may
//! start again. Large parameters, such as images, are dropped once the history is injected.

use std::sync::Arc;

use uuid::Uuid;

use super::params::ThreadParams;
use crate::{
    engine::{
        ContentGuard, Format, Message, Turn,
        app_server::{
            history::{self, InitialHistory, NewItems, response_item, turn_cache::TurnCache},
            rpc::protocol::{InjectItems, RawItem, StartTurn},
            threads::cache_key,
            tools::ToolSet,
        },
    },
    error::Error,
};

/// Maximum size of the parameters that are kept for another thread, in bytes.
const MAX_KEPT_BYTES: usize = 256 << 10;

/// Maximum number and size of the items of one `thread/inject_items`. A worker handles one request after the other, and
/// answers pings and the requests of other turns between two pieces. An item is never divided.
const MAX_PIECE_ITEMS: usize = 64;
const MAX_PIECE_BYTES: usize = 256 << 10;

/// The parameters for starting one turn.
#[derive(Debug)]
pub(crate) struct TurnStart {
    /// Has the messages until the history of a fresh thread is built.
    pub(crate) turn: Turn,
    pub(crate) thread_params: ThreadParams,
    /// The history of a fresh thread. `None` until it is needed.
    pub(crate) history: Option<InitialHistory>,
    /// The stable prompt-cache key of a fresh thread, if the turn has one. Set with the history.
    pub(crate) cache_key: Option<Uuid>,
}

impl TurnStart {
    /// Builds the history of a fresh thread, unless it exists.
    pub(crate) async fn build_history(
        &mut self,
        tools: &Arc<ToolSet>,
        cache: &Arc<TurnCache>,
    ) -> Result<(), Error> {
        if self.history.is_none() {
            cache.end_parked(&self.turn).await;
            self.cache_key = cache_key::of_turn(&self.turn);
            let turn = std::mem::take(&mut self.turn);
            let (turn, history) = InitialHistory::build(turn, Arc::clone(tools), Arc::clone(cache)).await?;
            self.turn = turn;
            // The history holds a copy of the messages, with images of many megabytes.
            self.turn.messages = Vec::new();
            self.history = Some(history);
        }
        Ok(())
    }

    /// Returns the last messages of the conversation as items. Returns `None` if their order does not allow it. Converts
    /// large messages on a blocking thread.
    pub(crate) async fn new_items(&mut self, new_messages: usize) -> Result<Option<NewItems>, Error> {
        let messages = std::mem::take(&mut self.turn.messages);
        let first = messages.len().saturating_sub(new_messages);
        let is_large = history::is_large(messages.get(first..).unwrap_or_default());
        let new = move || {
            let items = NewItems::of(messages.get(first..).unwrap_or_default());
            (messages, items)
        };
        let (messages, items) = history::inline_or_blocking(is_large, new).await?;
        self.turn.messages = messages;
        Ok(items)
    }

    /// Returns the items of a fresh thread.
    pub(crate) fn items(&self) -> &[RawItem] {
        self.history.as_ref().map_or(&[], |history| &history.items)
    }

    /// Drops the parameters of another thread if they are large.
    pub(crate) fn drop_large_parts(&mut self) {
        let items: usize = self.items().iter().map(response_item::heap_size).sum();
        let messages: usize = self.turn.messages.iter().map(size_of_message).sum();
        if items + messages + self.thread_params.heap_size() > MAX_KEPT_BYTES {
            self.history = Some(InitialHistory { items: Vec::new() });
            self.turn.messages = Vec::new();
            self.turn.content = ContentGuard::default();
            self.thread_params = ThreadParams::default();
        }
    }

    /// Returns `true` if the turn can start on another thread.
    pub(crate) fn can_start_thread(&self) -> bool {
        !self.items().is_empty() || !self.turn.messages.is_empty()
    }

    /// Returns the parameters of `turn/start`.
    pub(crate) fn start_turn<'a>(&'a self, thread_id: &'a str, is_fork: bool) -> StartTurn<'a> {
        let output_schema = match &self.turn.format {
            Format::JsonSchema(schema) => Some(schema.value.clone()),
            Format::Text | Format::JsonObject => None,
        };
        StartTurn {
            thread_id,
            input: [],
            effort: Some(&self.turn.reasoning_effort),
            summary: Some(&self.turn.reasoning_summary),
            output_schema,
            // A fork has an environment until it is closed. Only turns without environment start on a fork.
            environments: is_fork.then_some([]),
        }
    }
}

/// Returns the parameters of each `thread/inject_items`, in order.
pub(crate) fn inject_items<'a>(
    thread_id: &'a str,
    items: &'a [RawItem],
) -> impl Iterator<Item = InjectItems<'a>> {
    pieces(items).map(move |items| InjectItems { thread_id, items })
}

fn size_of_message(message: &Message) -> usize {
    let calls = message.tool_calls.iter().map(response_item::heap_size_of_call);
    history::content_bytes(message) + calls.sum::<usize>()
}

/// Divides items into pieces within the limits.
fn pieces(mut items: &[RawItem]) -> impl Iterator<Item = &[RawItem]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |item: &&RawItem| {
            bytes += response_item::heap_size(item);
            bytes <= MAX_PIECE_BYTES
        };
        let count = items.iter().take(MAX_PIECE_ITEMS).take_while(fits).count().max(1);
        let (piece, rest) = items.split_at_checked(count)?;
        items = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::app_server::rpc::protocol::ContentPart;

    #[test]
    fn drop_large_parts_keeps_a_small_history_only() {
        for (bytes, kept) in [(1 << 10, true), (MAX_KEPT_BYTES, false)] {
            let content = vec![ContentPart::InputText("x".repeat(bytes))];
            let items = vec![RawItem::message("user", content)];
            let history = Some(InitialHistory { items });
            let mut start = TurnStart {
                turn: Turn::default(),
                thread_params: ThreadParams::default(),
                history,
                cache_key: None,
            };
            start.drop_large_parts();
            assert_eq!(start.can_start_thread(), kept, "{bytes} bytes");
        }
    }

    #[test]
    fn start_turn_on_a_fork_closes_the_environment() {
        for (is_fork, expected) in [(true, Some(json!([]))), (false, None)] {
            let (turn, thread_params) = (Turn::default(), ThreadParams::default());
            let start = TurnStart { turn, thread_params, history: None, cache_key: None };
            let params = serde_json::to_value(start.start_turn("t", is_fork)).unwrap();
            assert_eq!(params.get("environments"), expected.as_ref());
        }
    }

    #[test]
    fn pieces_keep_the_order_and_the_limits() {
        let item = |bytes: usize| RawItem::message("user", vec![ContentPart::InputText("x".repeat(bytes))]);
        let lengths = |items: &[RawItem]| pieces(items).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&vec![item(1); 300]), [64, 64, 64, 64, 44]);
        assert_eq!(lengths(&vec![item(100 << 10); 5]), [2, 2, 1]);
        // An item above the limit has a piece of its own.
        assert_eq!(lengths(&[item(1), item(1 << 20), item(1), item(1)]), [1, 1, 2]);
        let items: Vec<RawItem> = (0..700).map(|n| item(n * 10)).collect();
        assert_eq!(pieces(&items).flatten().cloned().collect::<Vec<_>>(), items);
    }
}
