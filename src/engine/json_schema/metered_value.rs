//! A JSON value with a budget. `jsonschema` reads the value through a representation that counts reads. A validation that
//! exceeds the budget unwinds from the read. `jsonschema` 0.61 itself cannot limit a validation, a thread of the blocking
//! pool cannot be killed, and some schemas of a few lines take 2^60 steps.

use std::{
    any::Any,
    borrow::Cow,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    slice,
    time::Instant,
};

use jsonschema::{
    JsonType,
    json::{Array, Json, Node, NodeIdentity, Object, SerdeJson, cmp, unique},
};
use serde_json::{Map, Number, Value};

/// Number of reads between two checks of the clock.
const READS_PER_CLOCK_CHECK: u64 = 64;

/// Maximum stack of one validation. A thread of the blocking pool has 2 MiB. The depth of a validation is the depth of the
/// arguments times the depth of the schema. A stack overflow would abort the process.
const MAX_STACK_BYTES: usize = 1 << 20;

/// Number of text bytes that count as one read.
const TEXT_BYTES_PER_READ: usize = 64;

/// The limits of one validation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Maximum number of values and members that the validator may read.
    pub(crate) reads: u64,
    /// Maximum length of a text that a pattern may search, in bytes. A running search cannot be stopped.
    pub(crate) text_bytes: usize,
    /// Time at which the validation is aborted.
    pub(crate) deadline: Option<Instant>,
}

/// The error of a validation that exceeded its budget.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BudgetExceeded;

#[derive(Clone, Copy)]
struct Meter {
    budget: Budget,
    /// Address of a local variable of [`within`].
    stack_base: usize,
}

thread_local! {
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
}

/// Runs a validation whose reads of [`MeteredValue`]s count against the budget. Blocks the thread.
///
/// Returns an error as soon as the reads, the time or the stack exceed the budget.
pub(crate) fn within<T>(budget: Budget, validate: impl FnOnce() -> T) -> Result<T, BudgetExceeded> {
    let local = 0_u8;
    METER.set(Some(Meter { budget, stack_base: std::ptr::from_ref(&local).addr() }));
    // All state is local to the validation, so that no code reads the state after unwinding.
    let outcome = catch_unwind(AssertUnwindSafe(validate));
    METER.set(None);
    outcome.map_err(|payload: Box<dyn Any + Send>| match payload.downcast::<BudgetExceeded>() {
        Ok(exceeded) => *exceeded,
        Err(payload) => resume_unwind(payload),
    })
}

/// Subtracts reads from the budget of the thread's validation. Does nothing outside of a validation.
fn spend(reads: u64) {
    let Some(mut meter) = METER.get() else { return };
    let local = 0_u8;
    let stack = meter.stack_base.abs_diff(std::ptr::from_ref(&local).addr());
    let before = meter.budget.reads;
    let has_expired = || meter.budget.deadline.is_some_and(|deadline| Instant::now() >= deadline);
    if before < reads
        || stack > MAX_STACK_BYTES
        || (before / READS_PER_CLOCK_CHECK != (before - reads) / READS_PER_CLOCK_CHECK && has_expired())
    {
        // Unlike `panic!`, `resume_unwind` runs no panic hook and logs nothing.
        resume_unwind(Box::new(BudgetExceeded));
    }
    meter.budget.reads = before - reads;
    METER.set(Some(meter));
}

/// Subtracts the search of a text from the budget.
fn spend_search(text: &str) {
    if METER.get().is_some_and(|meter| text.len() > meter.budget.text_bytes) {
        resume_unwind(Box::new(BudgetExceeded));
    }
    spend((text.len() / TEXT_BYTES_PER_READ) as u64);
}

/// The representation of JSON that counts reads.
#[derive(Debug)]
pub(crate) struct Metered;

/// A borrowed value of [`Metered`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeteredValue<'a>(pub(crate) &'a Value);

/// The members of a [`MeteredValue`].
#[derive(Debug)]
pub(crate) struct Members<'a>(&'a Map<String, Value>);

/// The elements of a [`MeteredValue`].
#[derive(Debug)]
pub(crate) struct Elements<'a>(&'a [Value]);

impl Json for Metered {
    type Node<'a> = MeteredValue<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    const KEYS_PER_LOOKUP: usize = SerdeJson::KEYS_PER_LOOKUP;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Value, string: &str, f: impl FnOnce(MeteredValue<'_>) -> T) -> T {
        *buffer = Value::from(string);
        f(MeteredValue(buffer))
    }
}

impl<'a> Node<'a, Metered> for MeteredValue<'a> {
    type Object = Members<'a>;
    type Array = Elements<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Members<'a>> {
        spend(1);
        self.0.as_object().map(Members)
    }

    fn as_array(&self) -> Option<Elements<'a>> {
        spend(1);
        self.0.as_array().map(|items| Elements(items))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        spend(1);
        let text = self.0.as_str()?;
        spend_search(text);
        Some(Cow::Borrowed(text))
    }

    fn as_number(&self) -> Option<&'a Number> {
        spend(1);
        self.0.as_number()
    }

    fn as_boolean(&self) -> Option<bool> {
        spend(1);
        self.0.as_bool()
    }

    fn is_null(&self) -> bool {
        spend(1);
        self.0.is_null()
    }

    fn json_type(&self) -> JsonType {
        spend(1);
        Node::<SerdeJson>::json_type(&self.0)
    }

    fn string_length(&self) -> Option<u64> {
        spend(1);
        Node::<SerdeJson>::string_length(&self.0)
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        spend(1);
        Node::<SerdeJson>::string_length_within(&self.0, min, max)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        spend(1);
        cmp::equal(self.0, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        spend(1);
        Cow::Borrowed(self.0)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        spend(1);
        Node::<SerdeJson>::identity(&self.0)
    }
}

impl<'a> Object<'a, Metered> for Members<'a> {
    type Node = MeteredValue<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<MeteredValue<'a>> {
        spend(1);
        self.0.get(key).map(MeteredValue)
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.iter())
    }
}

impl<'a> Array<'a, Metered> for Elements<'a> {
    type Node = MeteredValue<'a>;
    type ElementsIter = ElementsIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> ElementsIter<'a> {
        ElementsIter(self.0.iter())
    }

    fn is_unique(&self) -> bool {
        spend(self.0.len() as u64);
        unique::is_unique(self.0)
    }
}

/// Iterator over [`Members`].
#[derive(Debug)]
pub(crate) struct MembersIter<'a>(serde_json::map::Iter<'a>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, MeteredValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        spend(1);
        spend_search(name);
        Some((name, MeteredValue(value)))
    }
}

/// Iterator over [`Elements`].
#[derive(Debug)]
pub(crate) struct ElementsIter<'a>(slice::Iter<'a, Value>);

impl<'a> Iterator for ElementsIter<'a> {
    type Item = MeteredValue<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.0.next()?;
        spend(1);
        Some(MeteredValue(value))
    }
}
