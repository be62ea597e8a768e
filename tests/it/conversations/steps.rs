//! Random steps of a client in a conversation.

use proptest::{collection::vec, option, prelude::*, sample};

use crate::tools::routes::{ROUTES, Route};

/// What the client does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Asks, and answers the calls of the model.
    Ask(Ask),
    /// Sends the last request of the conversation once more, and takes the new answer.
    Regenerate(Route),
    /// Replaces one of its earlier messages, and drops what followed.
    Edit(usize, Ask),
    /// Changes the last answer, and asks.
    EditAnswer(Ask),
    /// Goes on from an earlier answer; the other branch remains.
    Branch(usize, Ask),
    /// Sends a request and leaves before its end.
    Leave,
    Model(usize),
    System(usize),
    Effort(usize),
    OffersTools(bool),
    HasSchema(bool),
}

/// A question.
#[derive(Debug, Clone)]
pub struct Ask {
    pub route: Route,
    /// Instructions before the question.
    pub developer: Option<String>,
    pub name: Option<String>,
    pub content: Content,
    /// What the model is to do.
    pub script: Script,
    pub limit: Limit,
    /// The form in which the client sends the answer back.
    pub form: Form,
    /// The results of calls, in turn.
    pub results: Vec<ResultForm>,
    /// Words of the user beside the results.
    pub words: Option<String>,
    /// The client sends the results in reverse order.
    pub is_reversed: bool,
}

/// The content of a message beside the script.
#[derive(Debug, Clone)]
pub enum Content {
    Text(String),
    /// The text, and white space at its end that the client removes in later requests.
    TextWithSpace(String),
    Parts(Vec<String>),
    Picture(String),
}

/// The script of the model, as directives of the fake.
#[derive(Debug, Clone)]
pub enum Script {
    /// A digest of everything that the model gets.
    Digest,
    /// Everything that the model gets.
    Transcript,
    Text(String),
    /// Calls, in one response or several, then a digest. The flags: a text beside the calls, reasoning.
    Calls(Vec<Vec<(usize, String)>>, bool, bool),
    Fail(&'static str),
    Cut,
}

/// A limit of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    None,
    Stop,
    MaxTokens,
}

/// The form in which a client sends an answer back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Same,
    SpaceAtEnd,
    Parts,
    /// The text beside calls is left out, and the arguments are written by another JSON library.
    CallsOnly,
    /// Each call is a message of its own.
    MessagePerCall,
}

/// The content of a result.
#[derive(Debug, Clone)]
pub enum ResultForm {
    Text(String),
    Empty,
    Parts(Vec<String>),
    Picture,
    PictureAndText(String),
}

/// Texts that repeat in different conversations, so that their histories are often equal.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        sample::select(vec!["Hi".to_owned(), "More".to_owned(), "世界 é\nline".to_owned()]),
        "[a-z]{1,4}( [A-Z0-9.,\"\\\\]{1,4}){0,2}",
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let calls = vec(vec((0..2_usize, text()), 1..4), 1..3);
    prop_oneof![
        4 => Just(Script::Digest),
        2 => Just(Script::Transcript),
        1 => text().prop_map(Script::Text),
        4 => (calls, any::<bool>(), any::<bool>()).prop_map(|(calls, text, thinks)| Script::Calls(calls, text, thinks)),
        1 => sample::select(vec!["500", "400", "429-delay", "503-capacity", "incomplete-length", "incomplete-filter"])
            .prop_map(Script::Fail),
        1 => Just(Script::Cut),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        5 => text().prop_map(Content::Text),
        1 => text().prop_map(Content::TextWithSpace),
        1 => vec(text(), 1..3).prop_map(Content::Parts),
        1 => text().prop_map(Content::Picture),
    ]
}

fn result() -> impl Strategy<Value = ResultForm> {
    prop_oneof![
        4 => text().prop_map(ResultForm::Text),
        1 => Just(ResultForm::Empty),
        1 => vec(text(), 2..4).prop_map(ResultForm::Parts),
        1 => Just(ResultForm::Picture),
        1 => text().prop_map(ResultForm::PictureAndText),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let form = sample::select(vec![
        Form::Same,
        Form::Same,
        Form::Same,
        Form::SpaceAtEnd,
        Form::Parts,
        Form::CallsOnly,
        Form::MessagePerCall,
    ]);
    let limit = prop_oneof![12 => Just(Limit::None), 1 => Just(Limit::Stop), 1 => Just(Limit::MaxTokens)];
    (
        (sample::select(ROUTES.to_vec()), option::weighted(0.1, text()), option::weighted(0.1, "[a-z]{1,3}")),
        (content(), script(), limit, form),
        (vec(result(), 1..4), option::weighted(0.2, text()), any::<bool>()),
    )
        .prop_map(
            |((route, developer, name), (content, script, limit, form), (results, words, is_reversed))| Ask {
                route,
                developer,
                name,
                content,
                script,
                limit,
                form,
                results,
                words,
                is_reversed,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => ask().prop_map(Step::Ask),
        1 => sample::select(ROUTES.to_vec()).prop_map(Step::Regenerate),
        1 => (0..6_usize, ask()).prop_map(|(at, ask)| Step::Edit(at, ask)),
        1 => ask().prop_map(Step::EditAnswer),
        2 => (0..6_usize, ask()).prop_map(|(at, ask)| Step::Branch(at, ask)),
        1 => prop_oneof![
            (0..3_usize).prop_map(Step::Model),
            (0..3_usize).prop_map(Step::System),
            (0..3_usize).prop_map(Step::Effort),
            any::<bool>().prop_map(Step::OffersTools),
            any::<bool>().prop_map(Step::HasSchema),
            Just(Step::Leave),
        ],
    ]
}

/// Returns a strategy for the steps of one conversation.
pub fn conversation() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..9)
}
