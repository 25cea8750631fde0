//! What the fuzz targets need of the dialects, which are nobody else's business.

use super::sse::Sse;
use super::{App, anthropic, body, openai};
use crate::engine::{Event, FinishReason, Stats};
use crate::server::reply::Prepare;

/// Reads `bytes` as each dialect's body, and answers what is one with `answer`: what a stream of it is,
/// and the whole answer. Says why where it is none.
pub fn dialects(app: &App, bytes: &[u8], answer: &[u32]) -> Vec<Result<(String, String), String>> {
    let dialects: [Prepare; 3] = [
        openai::chat_request::prepare,
        openai::completions_request::prepare,
        anthropic::prepare,
    ];
    let read = |prepare: Prepare| {
        let mut answers = Vec::new();
        for stream in [true, false] {
            let fields = body::parse(bytes).map_err(|error| error.to_string())?;
            let mut prepared = prepare(app, fields, "req_0").map_err(|error| error.to_string())?;
            let mut out = Sse::default();
            prepared.reply.open(&mut out);
            for mut job in prepared.jobs {
                let started = Event::Started(Stats::default());
                let tokens = answer.iter().map(|&id| Event::Token { id, logprob: None });
                let finished = Event::Finished {
                    reason: FinishReason::Stop,
                    stats: Stats::default(),
                };
                for event in [started].into_iter().chain(tokens).chain([finished]) {
                    job.answer.take(event, |part| match stream {
                        true => prepared.reply.part(job.index, part, &mut out),
                        false => prepared.reply.keep(job.index, part),
                    });
                }
            }
            answers.push(match stream {
                true => {
                    prepared.reply.close(&mut out);
                    out.into_text()
                }
                false => prepared.reply.whole().to_string(),
            });
        }
        let whole = answers.pop().unwrap_or_default();
        Ok((answers.pop().unwrap_or_default(), whole))
    };
    dialects.into_iter().map(read).collect()
}
