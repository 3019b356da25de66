//! Texts on their way to a text tower: class names in sentences ([`Templates`]), cleaned as the tower's authors cleaned theirs ([`Clean`]),
//! and cut into numbered tokens ([`Tokenizer`]).

mod clean;
mod fix;
mod html;
mod openai;
mod templates;
mod tokenizer;

pub use clean::Clean;
pub use templates::{Templates, check_names, names_of};
pub use tokenizer::{TOKENIZER, Tokenizer, Tokens};
