//! Citations in the text of the model.

use crate::types::wire::wire_struct;

wire_struct! {
    /// The source of a passage of the model's text. The fields that say where in the source the
    /// cited text is depend on the kind of the citation, and are in `extra`.
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
        /// The kind of the citation, such as `char_location` or `web_search_result_location`.
        req kind = "type": String,
        /// The cited text.
        def cited_text: String,
        /// The index of the cited document among all documents of the request.
        opt document_index: u64,
        /// The title of the cited document.
        opt document_title: String,
        /// The title of the cited search result or web page.
        opt title: String,
        /// The URL of the cited web page.
        opt url: String,
        /// The source of the cited search result, as named in the request.
        opt source: String,
    }
}
