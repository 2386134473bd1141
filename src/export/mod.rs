//! What leaves the process about finished requests: spans and metrics to OpenTelemetry collectors,
//! lines to files and webhooks.
//!
//! Whoever closes a request calls [`Exports::offer`], which writes down what is wanted of it and
//! waits for nothing: `spans` and `series` say what that is, `otlp` how it is written. One
//! thread sends it, with a runtime of its own: a `sender` for each `outlet`, which holds a
//! bounded `queue`.
//!
//! Bounded: each outlet holds [`Pace::queue_bytes`] and, while it sends, a batch of 2 MiB or one
//! item once more; a span with bodies is at most about 800 KiB; all metrics 1.3 MiB, and 8 MiB
//! while they are sent.
//!
//! Leaves out OTLP's logs, gRPC, compression, and who is configured to be told.

mod destination;
mod file;
mod otlp;
mod outlet;
mod place;
mod post;
mod queue;
mod sender;
mod series;
mod settings;
mod spans;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
pub mod trace_context;
mod words;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc as orders, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::background;
use crate::dns::Dns;
use crate::logs::entry::Payload;
use crate::record::RequestRecord;
use crate::telemetry::access;
use destination::{Destination, Web};
use file::Lines;
pub use otlp::Encoding;
use otlp::{MetricsRequest, Resource, Spans};
use outlet::Outlet;
pub use outlet::Report;
pub use place::Headers;
use place::{Place, Signal};
use post::Client;
use queue::Item;
use sender::{Done, Orders, Sender, Supply};
use series::AllSeries;
pub use settings::{Exporter, Pace, Settings, Sink};
pub use spans::MOST_BODY as PAYLOAD;

/// How long the thread's end is waited for beyond the time that it was given.
const GRACE: Duration = Duration::from_millis(500);

/// All who are told of finished requests.
pub struct Exports {
    spans: Vec<SpanOutlet>,
    lines: Vec<Arc<Outlet>>,
    metrics: Vec<Arc<Outlet>>,
    /// `None` where nobody wants metrics.
    series: Option<Arc<Mutex<AllSeries>>>,
    /// One for each sender; all hanging up is the end.
    orders: Vec<orders::UnboundedSender<Done>>,
    thread: Option<Thread>,
    closing: Duration,
}

/// A way out for spans.
struct SpanOutlet {
    encoding: Encoding,
    payload: bool,
    outlet: Arc<Outlet>,
}

/// The thread that sends.
struct Thread {
    /// Told how long the end may take.
    end: oneshot::Sender<Duration>,
    handle: JoinHandle<()>,
}

impl Exports {
    /// Begins to send. `dns` should be its own: what it begins on the thread's runtime ends with
    /// it. Without anybody to tell there is no thread.
    ///
    /// # Errors
    /// Says which setting is wrong and why, or that the thread cannot be started; shows no secret.
    pub fn start(settings: Settings, dns: Arc<Dns>) -> Result<Self, String> {
        let closing = settings.pace.closing;
        let mut setup = Setup::new(settings.pace, dns);
        for (index, exporter) in settings.exporters.iter().enumerate() {
            let told = |error| format!("otel[{index}]: {error}");
            setup.exporter(index, exporter).map_err(told)?;
        }
        for (index, sink) in settings.sinks.into_iter().enumerate() {
            let told = |error| format!("sinks[{index}]: {error}");
            setup.sink(index, sink).map_err(told)?;
        }
        let thread = match setup.senders.is_empty() {
            true => None,
            false => Some(spawn(setup.senders)?),
        };
        Ok(Self {
            spans: setup.spans,
            lines: setup.lines,
            metrics: setup.metrics,
            series: setup.series,
            orders: setup.orders,
            thread,
            closing,
        })
    }

    /// Somebody wants the bodies of requests.
    pub fn wants_payload(&self) -> bool {
        self.spans.iter().any(|spans| spans.payload)
    }

    /// Takes over what is wanted of a finished request. Waits for nothing.
    pub fn offer(&self, record: &RequestRecord, payload: Option<&Payload>) {
        if !self.spans.is_empty() {
            self.offer_spans(record, payload);
        }
        if !self.lines.is_empty() {
            let line = Item::new(access::json_line(record).into_bytes(), 1);
            for outlet in &self.lines {
                outlet.push(line.clone());
            }
        }
        self.count(record);
    }

    /// The same for a request of which nothing but numbers may be told.
    pub fn count(&self, record: &RequestRecord) {
        if let Some(series) = &self.series {
            series.lock().observe(record);
        }
    }

    /// Each form that is wanted is written once, whoever wants it.
    fn offer_spans(&self, record: &RequestRecord, payload: Option<&Payload>) {
        let mut spans = spans::of(record);
        let units = spans.len() as u64;
        for with_payload in [false, true] {
            let wanted = |spans: &&SpanOutlet| spans.payload == with_payload;
            if !self.spans.iter().any(|spans| wanted(&spans)) {
                continue;
            }
            if let (true, Some(payload)) = (with_payload, payload)
                && let Some(own) = spans.first_mut()
            {
                own.attributes.extend(spans::bodies(payload));
            }
            let mut written: [Option<Item>; 2] = [None, None];
            for outlet in self.spans.iter().filter(wanted) {
                let form = &mut written[usize::from(outlet.encoding == Encoding::Json)];
                let write = || Item::new(otlp::encode(outlet.encoding, &Spans(&spans)), units);
                outlet.outlet.push(form.get_or_insert_with(write).clone());
            }
        }
    }

    /// Waits until all that was offered before is sent, refused or given up, and metrics are sent;
    /// says whether that came about in time. Blocks.
    pub fn flush(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let (done, all) = mpsc::channel();
        for order in &self.orders {
            // A sender that is gone hangs up, which is found out below.
            let _ = order.send(done.clone());
        }
        drop(done);
        let left = || until.saturating_duration_since(Instant::now());
        let mut flushed = self.orders.iter().map(|_| all.recv_timeout(left()));
        flushed.all(|done| done.is_ok())
    }

    /// What became of all that was offered, by way out.
    pub fn reports(&self) -> Vec<Report> {
        let spans = self.spans.iter().map(|spans| &spans.outlet);
        let all = spans.chain(&self.metrics).chain(&self.lines);
        all.map(|outlet| outlet.report()).collect()
    }

    fn close(&mut self) {
        self.orders.clear();
        let Some(Thread { end, handle }) = self.thread.take() else {
            return;
        };
        let until = Instant::now() + self.closing + GRACE;
        let _ = end.send(self.closing);
        while !handle.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A disk that never answers must not keep the process from ending.
        if !handle.is_finished() {
            return log::error!(
                "the exports of finished requests do not end; they are left behind"
            );
        }
        if handle.join().is_err() {
            log::error!("the exports of finished requests ended in a panic: a bug in tollgate");
        }
        for report in self.reports() {
            if report.queue_bytes > 0 {
                let (name, bytes) = (report.name, report.queue_bytes);
                log::error!("{name}: {bytes} bytes about finished requests were not sent");
            }
        }
    }
}

/// Sends what is left, within [`Pace::closing`]. Blocks.
impl Drop for Exports {
    fn drop(&mut self) {
        self.close();
    }
}

/// Everything under way to [`Exports`].
struct Setup {
    pace: Pace,
    client: Arc<Client>,
    resource: Arc<Resource>,
    /// When metrics begin.
    start: SystemTime,
    spans: Vec<SpanOutlet>,
    lines: Vec<Arc<Outlet>>,
    metrics: Vec<Arc<Outlet>>,
    series: Option<Arc<Mutex<AllSeries>>>,
    orders: Vec<orders::UnboundedSender<Done>>,
    senders: Vec<Sender>,
}

impl Setup {
    fn new(pace: Pace, dns: Arc<Dns>) -> Self {
        Self {
            client: Arc::new(Client::new(dns, pace.timeout)),
            pace,
            resource: Arc::new(Resource {
                instance: Uuid::now_v7().to_string(),
            }),
            start: SystemTime::now(),
            spans: Vec::new(),
            lines: Vec::new(),
            metrics: Vec::new(),
            series: None,
            orders: Vec::new(),
            senders: Vec::new(),
        }
    }

    fn exporter(&mut self, index: usize, exporter: &Exporter) -> Result<(), String> {
        let encoding = exporter.content_type;
        let (url, headers) = (&exporter.url, &exporter.headers);
        let place = Place::new(url, headers, encoding.content_type(), exporter.ca.clone())?;
        if exporter.traces {
            let web = self.web(place.clone().of_signal(Signal::Traces));
            let name = format!("otel[{index}].traces ({place})");
            let destination = Destination::Spans(web, encoding, Arc::clone(&self.resource));
            let outlet = self.outlet(name, destination, Supply::Queued);
            self.spans.push(SpanOutlet {
                encoding,
                payload: exporter.payload,
                outlet,
            });
        }
        if exporter.metrics {
            let web = self.web(place.clone().of_signal(Signal::Metrics));
            let name = format!("otel[{index}].metrics ({place})");
            let supply = Supply::Written(self.pace.metrics_every, self.metrics_writer(encoding));
            let outlet = self.outlet(name, Destination::Metrics(web, encoding), supply);
            self.metrics.push(outlet);
        }
        Ok(())
    }

    fn sink(&mut self, index: usize, sink: Sink) -> Result<(), String> {
        let (shown, destination) = match sink {
            Sink::File(path) => {
                let shown = path.display().to_string();
                let lines = Arc::new(Mutex::new(Lines::new(path)));
                (shown, Destination::File(lines))
            }
            Sink::Webhook { url, headers, ca } => {
                let place = Place::new(&url, &headers, "application/x-ndjson", ca)?;
                (place.to_string(), Destination::Hook(self.web(place)))
            }
        };
        let name = format!("sinks[{index}] ({shown})");
        let outlet = self.outlet(name, destination, Supply::Queued);
        self.lines.push(outlet);
        Ok(())
    }

    fn web(&self, place: Place) -> Web {
        Web {
            place,
            client: Arc::clone(&self.client),
        }
    }

    fn outlet(&mut self, name: String, destination: Destination, supply: Supply) -> Arc<Outlet> {
        let outlet = Arc::new(Outlet::new(name, self.pace.queue_bytes));
        let (order, receiver) = orders::unbounded_channel();
        self.orders.push(order);
        self.senders.push(Sender {
            outlet: Arc::clone(&outlet),
            destination,
            supply,
            orders: Orders::new(receiver),
            pace: self.pace.clone(),
        });
        outlet
    }

    /// Writes what all metrics have come to; nothing before there is something.
    fn metrics_writer(&mut self, encoding: Encoding) -> Box<dyn Fn() -> Option<Item> + Send> {
        let series = Arc::clone(self.series.get_or_insert_default());
        let (resource, start) = (Arc::clone(&self.resource), self.start);
        Box::new(move || {
            // Copied, so that whoever offers a request does not wait for all to be written.
            let series = series.lock().clone();
            let metrics = series.metrics();
            let request = MetricsRequest {
                resource: &resource,
                metrics: &metrics,
                start: spans::nanoseconds(start),
                now: spans::nanoseconds(SystemTime::now()),
            };
            let written = otlp::encode(encoding, &request);
            (!metrics.is_empty()).then(|| Item::new(written, 1))
        })
    }
}

fn spawn(senders: Vec<Sender>) -> Result<Thread, String> {
    let told = |error: std::io::Error| format!("cannot start the exports: {error}");
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(told)?;
    let (end, ended) = oneshot::channel();
    let handle = background::spawn("exports", move || keep(runtime, senders, ended));
    let handle = handle.map_err(told)?;
    Ok(Thread { end, handle })
}

/// The thread: all senders until they end, or until the time for that is over.
fn keep(runtime: Runtime, senders: Vec<Sender>, ended: oneshot::Receiver<Duration>) {
    runtime.block_on(async {
        let mut all: JoinSet<()> = senders.into_iter().map(Sender::run).collect();
        let is_over = async {
            // Whoever is gone without a word grants no time.
            let time = ended.await.unwrap_or_default();
            tokio::time::sleep(time).await;
        };
        let all_end = async {
            while let Some(ended) = all.join_next().await {
                if ended.is_err() {
                    log::error!("an export of finished requests panicked: a bug in tollgate");
                }
            }
        };
        tokio::select! {
            () = is_over => {}
            () = all_end => {}
        }
    });
    // A write that blocks is not waited for.
    runtime.shutdown_background();
}
