//! Messages and reasoning of the model in a turn, and their usage.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    super::{
        act::Act,
        version::Release,
        wire::{Usage, new_id, unix_ms, unix_us},
    },
    Context, Next, Turn,
};

/// An unfinished message of the agent.
pub(super) struct Message {
    id: String,
    phase: Option<&'static str>,
    text: String,
    began_ms: u64,
    head: Vec<u8>,
}

impl Turn {
    pub(super) fn open(&mut self, context: &mut Context, phase: Option<&'static str>) {
        let id = new_id("msg");
        let ids = format!(r#""threadId":"{}","turnId":"{}","itemId":"{id}""#, self.thread, self.id);
        let head = format!(r#"{{"method":"item/agentMessage/delta","params":{{{ids},"delta":""#).into_bytes();
        let message = Message { id, phase, text: String::new(), began_ms: unix_ms(), head };
        self.started(context, message.item(context.release));
        self.message = Some(message);
    }

    pub(super) fn delta(&mut self, context: &mut Context, text: &str) {
        if self.message.is_none() {
            self.open(context, None);
        }
        let Some(message) = &mut self.message else { return };
        message.text.push_str(text);
        if self.is_muted || !context.out.is_wanted("item/agentMessage/delta") {
            return;
        }
        if text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
            context.out.delta(&message.head, text);
        } else {
            let quoted = Value::from(text).to_string();
            context.out.delta(&message.head, &quoted[1..quoted.len() - 1]);
        }
    }

    pub(super) fn stream(&mut self, context: &mut Context, left: usize, every: Duration) -> Next {
        let Some(rest) = left.checked_sub(1) else { return Next::Now };
        self.delta(context, &format!("t={};", unix_us()));
        // Based on the scheduled time, so that one late delta does not delay the following ones.
        let next = self.next_piece.unwrap_or_else(Instant::now) + every;
        self.next_piece = Some(next);
        self.acts.push_front(Act::Stream { left: rest, every });
        if rest == 0 { Next::Now } else { Next::At(next) }
    }

    pub(super) fn flood(&mut self, context: &mut Context, left: usize) -> Next {
        const PIECE: usize = 1024;
        const AT_ONCE: usize = 64;
        let mut left = left;
        for _ in 0..AT_ONCE {
            let piece = left.min(PIECE);
            self.delta(context, &"0123456789abcdef".repeat(PIECE / 16)[..piece]);
            left -= piece;
            if left == 0 {
                return Next::Now;
            }
        }
        self.acts.push_front(Act::Flood { left });
        // Other turns run in between.
        Next::At(Instant::now())
    }

    pub(super) fn close(&mut self, context: &mut Context) {
        let Some(message) = self.message.take() else { return };
        let item = message.item(context.release);
        self.completed(context, item.clone(), message.began_ms);
        let parts = json!([{"type": "output_text", "text": message.text, "annotations": []}]);
        let mut raw = json!({"type": "message", "id": message.id, "role": "assistant", "content": parts});
        raw["status"] = json!("completed");
        if let Some(phase) = message.phase {
            raw["phase"] = json!(phase);
        }
        self.raw_item(context, raw);
        self.last_message = Some(item);
    }

    pub(super) fn reasoning(&mut self, context: &mut Context, summary: &[String], raw: Option<&str>) {
        let id = new_id("rs");
        let item = |summary: Value, content: Value| json!({"type": "reasoning", "id": id, "summary": summary, "content": content});
        self.started(context, item(json!([]), json!([])));
        self.notify(context, "item/reasoning/summaryPartAdded", json!({"itemId": id, "summaryIndex": 0}));
        for delta in summary {
            let params = json!({"itemId": id, "delta": delta, "summaryIndex": 0});
            self.notify(context, "item/reasoning/summaryTextDelta", params);
        }
        for delta in raw.into_iter().flat_map(|raw| raw.split_inclusive(' ')) {
            let params = json!({"itemId": id, "delta": delta, "contentIndex": 0});
            self.notify(context, "item/reasoning/textDelta", params);
        }
        let summary = summary.concat();
        let contents = raw.map_or(json!([]), |raw| json!([raw]));
        self.completed(context, item(json!([summary]), contents), unix_ms());
        let content = raw.map_or(Value::Null, |raw| json!([{"type": "reasoning_text", "text": raw}]));
        self.raw_item(
            context,
            json!({"type": "reasoning", "id": id, "summary": [{"type": "summary_text", "text": summary}],
                   "content": content, "encrypted_content": new_id("enc")}),
        );
    }

    pub(super) fn response(&mut self, context: &mut Context, usage: Usage) {
        (self.last, self.total, self.usage_reported) = (usage, self.total.plus(usage), false);
        if self.raw && context.release >= Release::V169 {
            let params = json!({"responseId": new_id("resp"), "usage": usage.token_usage(context.release),
                                "usageMetadata": usage.metadata()});
            self.notify(context, "rawResponse/completed", params);
        }
    }

    pub(super) fn unfinished(&mut self, usage: Usage) {
        (self.last, self.total, self.usage_reported) = (Usage::default(), self.total.plus(usage), false);
    }

    pub(super) fn report_usage(&mut self, context: &mut Context) {
        if std::mem::replace(&mut self.usage_reported, true) {
            return;
        }
        let usage = json!({"total": self.total.token_usage(context.release), "last": self.last.token_usage(context.release),
                           "modelContextWindow": 258_400});
        self.notify(context, "thread/tokenUsage/updated", json!({"tokenUsage": usage}));
        if !self.is_muted {
            let limits = json!({"limitId": "codex", "limitName": null, "primary": null, "secondary": null,
                                "credits": null, "planType": null});
            context.out.notify("account/rateLimits/updated", &json!({"rateLimits": limits}));
        }
    }
}

impl Message {
    fn item(&self, release: Release) -> Value {
        let mut item = json!({"type": "agentMessage", "id": self.id, "text": self.text, "phase": self.phase});
        if release >= Release::V140 {
            item["memoryCitation"] = Value::Null;
        }
        if release >= Release::V169 {
            item["moderation"] = Value::Null;
            item["delivery"] = Value::Null;
            item["questions"] = Value::Null;
        }
        item
    }
}
