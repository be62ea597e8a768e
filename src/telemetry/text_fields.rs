//! Formats the fields of the text log, so that no value can look like another field or another line. Callers choose some
//! values, such as the model, and others are texts of the upstream.

use std::fmt;

use tracing::field::Field;
use tracing_subscriber::{
    field::MakeExt,
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
    },
};

/// Returns the formatter of the fields of spans and events.
pub(super) fn formatter() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(write_field).delimited(" ")
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    if field.name() == "message" {
        return write_on_one_line(writer, &value);
    }
    write!(writer, "{}=", field.name())?;
    if is_one_value(&value) { writer.write_str(&value) } else { write!(writer, "{value:?}") }
}

fn write_on_one_line(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() { write!(writer, "{}", c.escape_default())? } else { writer.write_char(c)? }
    }
    Ok(())
}

/// Returns `true` if a value is a plain text, or has its strings quoted by `Debug`: outside of quotes, a reader finds
/// neither the sign of a field nor the end of the line. A quote that nothing closes would hide the next fields.
fn is_one_value(value: &str) -> bool {
    let mut quoted = false;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            _ if c.is_control() => return false,
            '"' => quoted = !quoted,
            '\\' if quoted => drop(chars.next()),
            '=' if !quoted => return false,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what the text log has written.
    fn logged(write: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .fmt_fields(formatter());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), write);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// Returns the text of a line outside of quotes.
    fn outside_of_quotes(line: &str) -> String {
        let (mut quoted, mut outside) = (false, String::new());
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => drop(chars.next()),
                _ if quoted => {}
                _ => outside.push(c),
            }
        }
        outside
    }

    #[test]
    fn forged_field_or_line_stays_within_its_value() {
        for forged in [
            "gpt status=200",
            "gpt\nINFO forged status=200",
            "gpt\" status=200 x=\"",
            "\"gpt\" status=200",
            "gpt\r\u{1b}[2K status=200",
            "gpt\\\" status=200",
            "\"gpt status=200",
        ] {
            let text = logged(|| {
                let span = tracing::error_span!("request", request.id = forged);
                let _in_span = span.enter();
                tracing::info!(turn.model = %forged, caller = forged, error = ?forged, end = 1, "turn ended");
            });
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.trim_end().contains(char::is_control), "{text:?}");
            let outside = outside_of_quotes(&text);
            assert!(!outside.contains("status="), "{text}");
            for field in ["request.id=", "turn.model=", "caller=", "error=", "end=1"] {
                assert!(outside.contains(field), "{field}: {text}");
            }
        }
    }

    #[test]
    fn plain_values_are_written_as_they_are() {
        let metadata = [("a=b", "c")];
        let text = logged(|| {
            tracing::info!(model = "gpt", reason = %"not logged in", n = 1, ?metadata, "turn\nended");
        });
        assert_eq!(
            text.trim(),
            r#"INFO turn\nended model="gpt" reason=not logged in n=1 metadata=[("a=b", "c")]"#
        );
    }
}
