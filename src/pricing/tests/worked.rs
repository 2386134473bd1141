//! Calls priced by hand. A dollar per million tokens is 1,000,000 pico-dollars per token.
//!
//! The rates are those of the public price lists, as the catalogue has them; each call's are
//! named in its comment.

use super::ServiceTier::{Batch, Flex, Priority, Standard};
use super::*;

struct Call(&'static str, &'static str, Usage, ServiceTier);

/// In pico-dollars.
#[track_caller]
fn costs_at(time: &str, call: Call, pico: u64) {
    let Call(provider, model, usage, tier) = call;
    let price = prices(Vec::new()).price(provider, model, &usage, tier, at(time));
    assert_eq!(price, Some((Cost(pico), CostSource::Catalogue)), "{model}");
}

#[track_caller]
fn costs(call: Call, pico: u64) {
    costs_at("2026-11-02T12:00:00Z", call, pico);
}

fn tokens(input: u64, output: u64) -> Usage {
    Usage {
        input,
        output,
        ..Usage::default()
    }
}

#[test]
fn openai() {
    let usage = Usage {
        cached_input: 1024,
        reasoning: 300,
        ..tokens(1500, 500)
    };
    // 476 x 1.25 + 1024 x 0.125 + 500 x 10: thoughts are output
    costs(
        Call("openai", "gpt-5", usage, Standard),
        595_000_000 + 128_000_000 + 5_000_000_000,
    );
    // 476 x 0.625 + 1024 x 0.0625 + 500 x 5
    costs(
        Call("openai", "gpt-5", usage, Flex),
        297_500_000 + 64_000_000 + 2_500_000_000,
    );
    costs(
        Call("openai", "gpt-5", usage, Batch),
        297_500_000 + 64_000_000 + 2_500_000_000,
    );
    // 476 x 2.5 + 1024 x 0.25 + 500 x 20
    costs(
        Call("openai", "gpt-5", usage, Priority),
        1_190_000_000 + 256_000_000 + 10_000_000_000,
    );
    // gpt-4o has no batch price for cached tokens: 476 x 1.25 + 1024 x 1.25 + 500 x 5
    costs(
        Call("openai", "gpt-4o-2024-08-06", usage, Batch),
        595_000_000 + 1_280_000_000 + 2_500_000_000,
    );
    // gpt-4o has no flex price: 476 x 2.5 + 1024 x 1.25 + 500 x 10
    costs(
        Call("openai", "gpt-4o", usage, Flex),
        1_190_000_000 + 1_280_000_000 + 5_000_000_000,
    );
}

#[test]
fn openai_long_context() {
    // Up to 272,000: 272,000 x 2.5 + 1000 x 15
    costs(
        Call("openai", "gpt-5.4", tokens(272_000, 1000), Standard),
        680_000_000_000 + 15_000_000_000,
    );
    // Above, all of it: 272,001 x 5 + 1000 x 22.5
    costs(
        Call("openai", "gpt-5.4", tokens(272_001, 1000), Standard),
        1_360_005_000_000 + 22_500_000_000,
    );
    // Its priority price has no threshold: 272,001 x 5 + 1000 x 30
    costs(
        Call("openai", "gpt-5.4", tokens(272_001, 1000), Priority),
        1_360_005_000_000 + 30_000_000_000,
    );
}

#[test]
fn openai_audio_and_images() {
    let usage = Usage {
        input_audio: 600,
        cached_input: 300,
        cached_audio: 200,
        output_audio: 400,
        input_image: 50,
        ..tokens(1000, 450)
    };
    // Input: 200 cached audio x 0.4, 100 cached text x 0.4, 400 audio x 32, 50 of images x 5,
    // 250 text x 4; output: 400 audio x 64, 50 text x 16
    let input = 80_000_000 + 40_000_000 + 12_800_000_000 + 250_000_000 + 1_000_000_000;
    let output = 25_600_000_000 + 800_000_000;
    costs(
        Call("openai", "gpt-realtime", usage, Standard),
        input + output,
    );
}

#[test]
fn prices_have_a_history() {
    let call = || Call("openai", "o3", tokens(100, 10), Standard);
    // 100 x 10 + 10 x 40, and from the tenth 100 x 2 + 10 x 8
    costs_at("2025-06-09T23:59:59Z", call(), 1_400_000_000);
    costs_at("2025-06-10T00:00:00Z", call(), 280_000_000);
    // Flex prices are known from October 12, 2026: 100 x 1 + 10 x 4
    let flex = || Call("openai", "o3", tokens(100, 10), Flex);
    costs_at("2026-10-11T23:59:59Z", flex(), 280_000_000);
    costs_at("2026-10-12T00:00:00Z", flex(), 140_000_000);
}

#[test]
fn anthropic() {
    let usage = Usage {
        cached_input: 2000,
        cache_write: 1000,
        cache_write_1h: 400,
        web_searches: 3,
        ..tokens(3100, 200)
    };
    // 100 x 3 + 2000 x 0.3 + 600 for five minutes x 3.75 + 400 for an hour x 6 + 200 x 15,
    // and 3 searches at 10 dollars a thousand
    let tokens_cost = 300_000_000 + 600_000_000 + 2_250_000_000 + 2_400_000_000 + 3_000_000_000;
    let call = Call("anthropic", "claude-sonnet-4-5-20250929", usage, Standard);
    costs(call, tokens_cost + 30_000_000_000);
    // In batches half of it, searches as ever.
    let call = Call("anthropic", "claude-sonnet-4-5-20250929", usage, Batch);
    costs(call, tokens_cost / 2 + 30_000_000_000);
    // More than 200,000 read, though from the cache: 1000 x 6 + 200,000 x 0.6 + 10 x 22.5
    let long = Usage {
        cached_input: 200_000,
        ..tokens(201_000, 10)
    };
    let call = Call("anthropic", "claude-sonnet-4-5", long, Standard);
    costs(call, 6_000_000_000 + 120_000_000_000 + 225_000_000);
}

#[test]
fn gemini() {
    let thoughts = Usage {
        reasoning: 700,
        ..tokens(1000, 800)
    };
    // Thoughts are output: 1000 x 1.25 + 800 x 10
    let call = Call(
        "google-ai-studio",
        "models/gemini-2.5-pro",
        thoughts,
        Standard,
    );
    costs(call, 1_250_000_000 + 8_000_000_000);
    // More than 200,000: 150,001 x 2.5 + 50,000 cached x 0.25 + 100 x 15
    let long = Usage {
        cached_input: 50_000,
        ..tokens(200_001, 100)
    };
    let call = Call("google-vertex-ai", "gemini-2.5-pro", long, Standard);
    costs(call, 375_002_500_000 + 12_500_000_000 + 1_500_000_000);
    let audio = Usage {
        input_audio: 900,
        cached_input: 500,
        cached_audio: 400,
        ..tokens(1000, 10)
    };
    // 400 cached audio x 0.1 + 100 cached x 0.03 + 500 audio x 1 + 0 x 0.3 + 10 x 2.5
    let call = Call("google-ai-studio", "gemini-2.5-flash", audio, Standard);
    costs(call, 40_000_000 + 3_000_000 + 500_000_000 + 25_000_000);
}

#[test]
fn others() {
    // 1000 x 0.15 + 500 x 0.075 cached + 100 x 0.6
    let cached = Usage {
        cached_input: 500,
        ..tokens(1500, 100)
    };
    costs(
        Call("groq", "openai/gpt-oss-120b", cached, Standard),
        150_000_000 + 37_500_000 + 60_000_000,
    );
    // 1000 x 2 + 100 x 6
    costs(
        Call(
            "mistral",
            "mistral-large-latest",
            tokens(1000, 100),
            Standard,
        ),
        2_600_000_000,
    );
    // 1001 x 0.0375 + 3 x 0.15
    costs(
        Call("cohere", "command-r7b-12-2024", tokens(1001, 3), Standard),
        37_537_500 + 450_000,
    );
    // 100 x 1 + 100 x 1 and 12 dollars per thousand requests
    costs(
        Call("perplexity-ai", "sonar", tokens(100, 100), Standard),
        200_000_000 + 12_000_000_000,
    );
    // 10 x 2 + 70 of thoughts x 3 + 30 x 8 and 4 searches at 5 dollars per thousand
    let research = Usage {
        reasoning: 70,
        web_searches: 4,
        ..tokens(10, 100)
    };
    costs(
        Call("perplexity-ai", "sonar-deep-research", research, Standard),
        20_000_000 + 210_000_000 + 240_000_000 + 20_000_000_000,
    );
}

#[test]
fn deepseek_by_the_hour() {
    let cached = Usage {
        cached_input: 900,
        ..tokens(1000, 10)
    };
    let call = || Call("deepseek", "deepseek-chat", cached, Standard);
    // By day 100 x 0.27 + 900 x 0.07 + 10 x 1.1, by night 100 x 0.135 + 900 x 0.035 + 10 x 0.55
    costs_at("2025-03-01T00:30:00Z", call(), 101_000_000);
    costs_at("2025-03-01T16:30:00Z", call(), 50_500_000);
}

#[test]
fn bedrock_by_region() {
    let usage = Usage {
        cached_input: 400,
        cache_write: 300,
        cache_write_1h: 100,
        ..tokens(1000, 10)
    };
    // 300 x 2 + 400 x 0.1 + 200 x 2.5 + 100 x 4 + 10 x 10
    let global = "global.anthropic.claude-sonnet-5-5";
    let pico = 600_000_000 + 40_000_000 + 500_000_000 + 400_000_000 + 100_000_000;
    costs(Call("aws-bedrock", global, usage, Standard), pico);
    // In one region a tenth more.
    let regional = "eu.anthropic.claude-sonnet-5-5";
    costs(
        Call("aws-bedrock", regional, usage, Standard),
        pico / 10 * 11,
    );
    // 600 x 0.8 + 400 x 0.2 + 10 x 3.2: no price for cache writes, so they are input
    costs(
        Call("aws-bedrock", "us.amazon.nova-pro-v1:0", usage, Standard),
        592_000_000,
    );
}

#[test]
fn azure_sells_others_models_at_their_usual_prices() {
    // 1000 x 0.15 + 100 x 0.6, in batches too: their batch prices are theirs alone
    let call = |tier| Call("azure-openai", "gpt-4o-mini", tokens(1000, 100), tier);
    costs(call(Standard), 210_000_000);
    costs(call(Batch), 210_000_000);
}
