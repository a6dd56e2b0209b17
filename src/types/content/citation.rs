//! What a passage of text is based on.

use crate::types::wire::wire_struct;

wire_struct! {
    /// What a passage of an answer is based on; the location's fields, which depend on the kind,
    /// are in `extra`.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// # fn show(message: &Message) {
    /// for block in &message.content {
    ///     let ContentBlock::Text(block) = block else { continue };
    ///     println!("{}", block.text);
    ///     for citation in block.citations.iter().flatten() {
    ///         println!("  from {:?}: {}", citation.document_title, citation.cited_text);
    ///         let from = citation.extra.get("start_char_index").and_then(|index| index.as_u64());
    ///         println!("  beginning at {from:?}");
    ///     }
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct Citation {
        /// The kind, such as `char_location` or `web_search_result_location`.
        req kind = "type": String,
        /// The text cited.
        def cited_text: String,
        /// The index of the document cited, counted over the whole request.
        opt document_index: u64,
        /// The title of the document cited.
        opt document_title: String,
        /// The title of the search result or page cited.
        opt title: String,
        /// The address of the page cited.
        opt url: String,
        /// The source of the search result cited, as the request named it.
        opt source: String,
    }
}
