//! The picture: SVG by hand, without script, for light and dark pages.

use std::fmt::Write as _;
use std::time::Duration;

use crate::run::{Bin, INPUT_PER_MINUTE, OUTPUT_PER_MINUTE, Outcome, REQUESTS_PER_MINUTE, THREADS};

/// The data of the picture; equal data gives an equal picture.
pub struct Picture<'a> {
    /// The run with the official clients' default number of retries.
    pub naive: &'a Outcome,
    /// The run with more retries: mentioned in the text only.
    pub patient: &'a Outcome,
    pub client: &'a Outcome,
    /// The date of the runs.
    pub date: String,
}

// Pixels at the width of a README on GitHub; the text is still legible at half the width.
const WIDTH: f64 = 830.0;
const HEIGHT: f64 = 652.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 772.0;
/// Where the two panels begin, headings included.
const PANELS: [f64; 2] = [124.0, 350.0];
/// Heights below the heading: of the granted tokens, and of the refusals.
const GRANTED: f64 = 118.0;
const REFUSED: f64 = 62.0;
const HEADING: f64 = 18.0;

/// Seconds that are drawn as one block: a request may be as large as several seconds of the limit.
const BLOCK: usize = 5;
const LIMIT: f64 = INPUT_PER_MINUTE as f64 / 60.0;

impl Picture<'_> {
    pub fn svg(&self) -> String {
        let sides = [self.naive, self.client];
        let scale = Scale::of(&sides);
        let prompts = grouped(self.naive.answered + self.naive.lost);
        let mut svg = self.head(&prompts);
        scale.draw_times(&mut svg);
        let [naive, client] = PANELS;
        scale.draw(
            &mut svg,
            naive,
            "Retries as in the official SDKs",
            self.naive,
        );
        scale.draw(&mut svg, client, "This client", self.client);
        if blocks(self.naive).next().is_some_and(|rate| rate > LIMIT) {
            scale.draw_store(&mut svg);
        }
        self.draw_foot(&mut svg);
        svg + "</svg>\n"
    }

    fn head(&self, prompts: &str) -> String {
        let told = |outcome: &Outcome| {
            format!(
                "{} of {} prompts lost, {} requests refused, over at {}",
                outcome.lost,
                outcome.lost + outcome.answered,
                outcome.refused,
                clock(outcome.took)
            )
        };
        let (naive, client) = (told(self.naive), told(self.client));
        let (card_width, card_height) = (WIDTH - 1.0, HEIGHT - 1.0);
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title desc">
<title id="title">The same prompts under the same rate limit, with retries as in the official SDKs and with this client</title>
<desc id="desc">Two charts over time of the input tokens that the server granted per second, and of the requests that it refused. Retries as in the official SDKs: {naive}. This client: {client}.</desc>
<style>{STYLE}</style>
<rect class="card" x=".5" y=".5" width="{card_width}" height="{card_height}" rx="8"/>
<text class="title" x="24" y="40">{prompts} prompts, {THREADS} threads, one rate limit</text>
<text class="about" x="24" y="68">Input tokens per second that the server <tspan class="granted">granted</tspan>; below, each request that it <tspan class="refused">refused</tspan> with a 429.</text>
<text class="about" x="24" y="90">By default, the official SDKs <tspan class="lost">give up</tspan> at the third refusal.</text>
"#
        )
    }

    fn draw_foot(&self, svg: &mut String) {
        let [requests, input, output] =
            [REQUESTS_PER_MINUTE, INPUT_PER_MINUTE, OUTPUT_PER_MINUTE].map(grouped);
        let Outcome { lost, refused, .. } = *self.patient;
        let took = clock(self.patient.took);
        let lines = [
            "Prompts with a median of 2,000 tokens in and 250 out. A test server with the limits of \
             Fable 5, tier Start:"
                .to_owned(),
            format!(
                "{requests} requests, {input} tokens in, {output} out a minute. \
                 With 10 retries, not 2: {lost} lost, {refused} refused, over at {took}."
            ),
            format!(
                "Run in real time on {}, drawn by: cargo run --release --example picture",
                self.date
            ),
        ];
        for (line, y) in lines.iter().zip([598.0, 616.0, 634.0]) {
            add(
                svg,
                format_args!(r#"<text class="foot" x="24" y="{y}">{line}</text>"#),
            );
        }
    }
}

/// Scales that both panels share.
struct Scale {
    /// In seconds.
    end: f64,
    /// The highest block, in tokens per second.
    top: f64,
    /// The height of a mark with the gap to the next.
    pitch: f64,
}

impl Scale {
    fn of(sides: &[&Outcome]) -> Scale {
        let most =
            |each: fn(&Outcome) -> f64| sides.iter().map(|side| each(side)).fold(1.0, f64::max);
        let top = most(|side| blocks(side).fold(0.0, f64::max));
        let marks = most(|side| {
            let refused = side.bins.iter().map(|bin| bin.refused.max(bin.lost));
            refused.max().unwrap_or_default() as f64
        });
        Scale {
            end: most(|side| side.took.as_secs_f64()),
            top: top.max(LIMIT * 1.2),
            pitch: (REFUSED / marks).min(4.0),
        }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (seconds / self.end).min(1.0)
    }

    /// How high above the line.
    fn height(&self, rate: f64) -> f64 {
        GRANTED * rate / self.top
    }

    fn draw_times(&self, svg: &mut String) {
        let steps = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0,
        ];
        let step = steps
            .into_iter()
            .find(|step| self.end / step <= 9.0)
            .unwrap_or(3_600.0);
        let top = PANELS[0] + HEADING;
        let bottom = PANELS[1] + HEADING + GRANTED + REFUSED;
        for index in 0..=(self.end / step) as u32 {
            let seconds = step * f64::from(index);
            let (x, label) = (self.x(seconds), clock(Duration::from_secs_f64(seconds)));
            add(
                svg,
                format_args!(
                    r#"<path class="grid" d="M{x:.1} {top}V{bottom}"/><text class="tick" x="{x:.1}" y="{:.0}" text-anchor="middle">{label}</text>"#,
                    bottom + 18.0
                ),
            );
        }
    }

    fn draw(&self, svg: &mut String, top: f64, name: &str, outcome: &Outcome) {
        let base = top + HEADING + GRANTED;
        let prompts = outcome.answered + outcome.lost;
        let (verdict, class) = match outcome.lost {
            0 => (format!("all {prompts} prompts answered"), "granted"),
            lost => (format!("{lost} of {prompts} prompts lost"), "lost"),
        };
        let refused = match outcome.refused {
            0 => "none refused".to_owned(),
            1 => "one request refused".to_owned(),
            refused => format!("{} requests refused", grouped(refused)),
        };
        add(
            svg,
            format_args!(r#"<text class="name" x="24" y="{top}">{name}</text>"#),
        );
        add(
            svg,
            format_args!(
                r#"<text class="name" x="806" y="{top}" text-anchor="end"><tspan class="{class}">{verdict}</tspan><tspan class="about">, {refused}</tspan></text>"#
            ),
        );
        self.draw_rates(svg, base);

        // One outline over all blocks.
        let mut path = format!("M{LEFT} {base}");
        for (index, rate) in blocks(outcome).enumerate() {
            let (y, x) = (
                base - self.height(rate),
                self.x(((index + 1) * BLOCK) as f64),
            );
            let _ = write!(path, "V{y:.1}H{x:.1}");
        }
        add(
            svg,
            format_args!(r#"<path class="area" d="{path}V{base}z"/>"#),
        );
        let limit = base - self.height(LIMIT);
        add(
            svg,
            format_args!(
                r#"<path class="limit" d="M{LEFT} {limit:.1}H{RIGHT}"/><text class="tick strong" x="776" y="{:.1}">limit</text>"#,
                limit + 5.0
            ),
        );
        self.draw_marks(svg, base, &outcome.bins);
        self.draw_end(svg, base, outcome);
        add(
            svg,
            format_args!(r#"<path class="base" d="M{LEFT} {base}H{RIGHT}"/>"#),
        );
    }

    /// Marks the end of the last prompt, on the side where there is room.
    fn draw_end(&self, svg: &mut String, base: f64, outcome: &Outcome) {
        let seconds = outcome.took.as_secs_f64();
        let x = self.x(seconds);
        let (anchor, shift) = if seconds > self.end * 0.65 {
            ("end", -7.0)
        } else {
            ("start", 7.0)
        };
        let took = clock(outcome.took);
        let label = match outcome.lost {
            0 => format!("done at {took}"),
            _ => {
                let share = outcome.lost_tokens * 100.0;
                format!("over at {took}, without {share:.0}\u{a0}% of the tokens")
            }
        };
        add(
            svg,
            format_args!(
                r#"<path class="limit" d="M{x:.1} {base}v24"/><text class="note" x="{:.1}" y="{:.0}" text-anchor="{anchor}">{label}</text>"#,
                x + shift,
                base + 21.0
            ),
        );
    }

    /// Says why the server grants more than the limit at first.
    fn draw_store(&self, svg: &mut String) {
        let x = self.x(BLOCK as f64) + 8.0;
        add(
            svg,
            format_args!(
                r#"<text class="note" x="{x:.1}" y="{:.0}">at first, from a minute’s worth in store</text>"#,
                PANELS[0] + HEADING + 14.0
            ),
        );
    }

    /// Round rates, and the limit itself.
    fn draw_rates(&self, svg: &mut String, base: f64) {
        let rounded = (1..=9).map(|index| f64::from(index) * 10_000.0);
        let limit = self.height(LIMIT);
        let far = rounded.filter(|rate| (self.height(*rate) - limit).abs() > 16.0);
        for rate in far.take_while(|rate| *rate <= self.top).chain([LIMIT]) {
            let (y, label) = (base - self.height(rate), grouped(rate as u64));
            add(
                svg,
                format_args!(
                    r#"<path class="grid" d="M{LEFT} {y:.1}H{RIGHT}"/><text class="tick" x="{:.0}" y="{:.1}" text-anchor="end">{label}</text>"#,
                    LEFT - 6.0,
                    y + 5.0
                ),
            );
        }
    }

    /// Draws a dash for each refusal, downwards from the line: first those that lost a prompt.
    fn draw_marks(&self, svg: &mut String, base: f64, bins: &[Bin]) {
        let (dash, gap) = (self.pitch * 0.75, self.pitch * 0.25);
        let (mut lost, mut refused) = (String::new(), String::new());
        for (second, bin) in bins.iter().enumerate() {
            let x = self.x(second as f64 + 0.5);
            let others = bin.refused.saturating_sub(bin.lost);
            for (path, above, count) in [(&mut lost, 0, bin.lost), (&mut refused, bin.lost, others)]
            {
                if count > 0 {
                    let y = base + 3.0 + self.pitch * above as f64;
                    let length = self.pitch * count as f64 - gap;
                    let _ = write!(path, "M{x:.1} {y:.2}v{length:.2}");
                }
            }
        }
        let width = ((RIGHT - LEFT) / self.end * 0.8).min(6.0);
        for (class, path) in [("refused", refused), ("lost", lost)] {
            if !path.is_empty() {
                add(
                    svg,
                    format_args!(
                        r#"<path class="{class} marks" stroke-width="{width:.2}" stroke-dasharray="{dash:.2} {gap:.2}" d="{path}"/>"#
                    ),
                );
            }
        }
    }
}

/// Returns the tokens per second of each block.
fn blocks(outcome: &Outcome) -> impl Iterator<Item = f64> {
    let blocks = outcome.bins.chunks(BLOCK);
    blocks.map(|block| block.iter().map(|bin| bin.granted).sum::<u64>() as f64 / BLOCK as f64)
}

fn add(svg: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(svg, "{line}").expect("a string takes all");
}

/// Minutes and seconds, such as `3:05`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// A number with commas, such as `450,000`.
fn grouped(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}

// Nearly everyone can distinguish blue and vermilion; the two vermilions differ in lightness.
const STYLE: &str = "\
svg{color-scheme:light dark;--card:#fff;--edge:#d1d9e0;--ink:#1f2328;--soft:#59636e;--grid:#e6eaee;\
--granted:#0072b2;--refused:#d17a1f;--lost:#9c1c06}\
@media(prefers-color-scheme:dark){svg{--card:#0d1117;--edge:#3d444d;--ink:#f0f6fc;--soft:#a4acb6;\
--grid:#262c34;--granted:#4da6de;--refused:#b0702c;--lost:#ff8a5c}}\
text{font-family:-apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif;fill:var(--ink)}\
.card{fill:var(--card);stroke:var(--edge)}\
.title{font-size:23px;font-weight:600}\
.name{font-size:18px;font-weight:600}\
.about{font-size:16px;font-weight:400;fill:var(--soft)}\
.tick{font-size:14px;fill:var(--soft)}.strong{fill:var(--ink);font-weight:600}\
.note{font-size:15px;fill:var(--soft);paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}\
.foot{font-size:13.5px;fill:var(--soft)}\
tspan{font-weight:600}tspan.about{font-weight:400}\
tspan.granted{fill:var(--granted)}tspan.refused{fill:var(--refused)}tspan.lost{fill:var(--lost)}\
path{fill:none}.area{fill:var(--granted)}\
.grid{stroke:var(--grid)}.base{stroke:var(--soft)}.limit{stroke:var(--ink);stroke-width:1.5}\
.marks.refused{stroke:var(--refused)}.marks.lost{stroke:var(--lost)}";
