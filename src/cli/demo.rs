//! `tidegate demo`: the gateway in front of a small app, with real provider payloads played through it.
//!
//! Here lives the play and its report. The app (`demo/app`), the senders (`demo/events`, `demo/client`) and the gateway
//! as a child process (`demo/gateway`) meet only over sockets, as they would anywhere else. It is for people who want
//! to see the promises hold on their own machine; the tests that try to break them are in `tests/`.

mod app;
mod client;
mod events;
mod gateway;
mod play;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::clock::Clock;
use crate::config::{AdminAddress, Config, Unfetched};

use app::App;
use client::Client;
use events::{Kind, Sender, What};
use gateway::Gateway;

/// Run the gateway in front of a demonstration app and play real events through it
#[derive(clap::Args, Debug)]
pub struct Demo {
    /// The config to run; needs routes named github, stripe and contacts, as conf/quickstart.yaml has
    #[arg(long, short, value_name = "FILE", default_value = "conf/quickstart.yaml")]
    config: PathBuf,
    /// End by itself: exit code 0 if everything went as it should, 1 otherwise
    #[arg(long)]
    once: bool,
}

/// Where the demonstration's secrets and its gateway's log are; `conf/quickstart.yaml` refers to the former.
const FOLDER: &str = "data";

/// The routes of the play, and who sends to them.
const ROUTES: [(&str, Kind); 3] =
    [("github", Kind::GitHub), ("stripe", Kind::Stripe), ("contacts", Kind::StandardWebhooks)];

impl Demo {
    pub fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(problem) => return failed(&format!("no runtime: {problem}")),
        };
        match runtime.block_on(self.perform()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(problem) => failed(&problem),
        }
    }

    /// Whether everything went as it should; `Err` if it could not even begin.
    async fn perform(&self) -> Result<bool, String> {
        let secrets = make_secrets(Path::new(FOLDER))?;
        let config = crate::config::load(&self.config, &Unfetched)
            .map_err(|problems| format!("the config is not right:\n{problems}"))?
            .config;
        let scene = Scene::of(&config, secrets)?;
        scene.check_ports(&self.config)?;

        let mut app = App::new(scene.app);
        app.switch_on().await.map_err(|problem| format!("the app at {}: {problem}", scene.app))?;
        let log = Path::new(FOLDER).join("gateway.log");
        let mut gateway = Gateway::start(&self.config, &scene.admin, log).await?;
        let client = Client::new(scene.gateway, &scene.certificate)?;

        let (report, wrong) = play::perform(&scene, &client, &mut app).await?;
        println!("{report}\n");
        match wrong.as_slice() {
            [] => println!("Everything went as it should: nothing lost, nothing twice, every byte as sent."),
            wrong => wrong.iter().for_each(|what| println!("WRONG: {what}")),
        }

        let stayed = if self.once { Ok(()) } else { self.stay(&scene, &mut gateway).await };
        app.switch_off().await;
        let stopped = match stayed {
            Ok(()) => gateway.stop().await,
            Err(ended) => Err(ended),
        };
        match stopped {
            Ok(()) => Ok(wrong.is_empty()),
            Err(problem) => Err(problem),
        }
    }

    /// Stays up until Ctrl-C. `Err` if the gateway ends before.
    async fn stay(&self, scene: &Scene, gateway: &mut Gateway) -> Result<(), String> {
        let base = format!("https://localhost:{}", scene.gateway.port());
        let ping = scene.sender(Kind::GitHub).event(What::Ping, Clock::System.now());
        let admin = match &scene.admin {
            AdminAddress::Tcp(address) => format!("http://{address}/metrics and /readyz"),
            AdminAddress::Unix(path) => format!("unix socket {}", path.display()),
            AdminAddress::Off => "off".into(),
        };
        println!("\nThe gateway stays up until you press Ctrl-C.");
        println!("  gateway  {base} (its log: {FOLDER}/gateway.log)");
        println!("  app      http://{}", scene.app);
        println!("  admin    {admin}");
        println!(
            "\nA signed event: 202, and once more: the same answer, as a duplicate.\n\n  {}",
            ping.curl(&base)
        );
        println!("\nThe same with one figure changed: 401.\n\n  {}\n", ping.tampered().curl(&base));
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|problem| format!("signals: {problem}"))?;
        tokio::select! {
            asked = tokio::signal::ctrl_c() => asked.map_err(|problem| format!("signals: {problem}")),
            _ = terminate.recv() => Ok(()),
            ended = gateway.ended() => Err(ended),
        }
    }
}

fn failed(problem: &str) -> ExitCode {
    eprintln!("demo: {problem}");
    ExitCode::FAILURE
}

/// What the play needs to know of the config.
struct Scene {
    gateway: SocketAddr,
    certificate: PathBuf,
    admin: AdminAddress,
    app: SocketAddr,
    senders: Vec<Sender>,
}

impl Scene {
    fn of(config: &Config, secrets: Vec<(&'static str, Kind, String)>) -> Result<Self, String> {
        let (listener, tls) = config
            .listeners
            .iter()
            .find_map(|listener| Some((listener, listener.tls.as_ref()?)))
            .ok_or("the config has no listener with `tls`")?;
        let certificate = tls.certificates.first().ok_or("the listener has no certificate")?.cert.clone();
        let mut app = None;
        let mut senders = Vec::new();
        for (name, kind, secret) in secrets {
            let route = config
                .routes
                .iter()
                .find(|route| &*route.name == name)
                .ok_or_else(|| format!("the config has no route named `{name}`"))?;
            let upstream = route.mode.destinations().first().and_then(|to| to.upstreams.first());
            app = app.or_else(|| upstream?.authority()?.as_str().parse::<SocketAddr>().ok());
            senders.push(Sender { kind, path: route.path.clone(), secret });
        }
        let app = app.ok_or("the routes forward to no address such as http://127.0.0.1:3000")?;
        if config.admin.listen == AdminAddress::Off {
            return Err(
                "the demonstration asks the gateway's admin API whether it is ready: `admin` is off".into()
            );
        }
        let gateway = listener.address;
        Ok(Self { gateway, certificate, admin: config.admin.listen.clone(), app, senders })
    }

    fn sender(&self, kind: Kind) -> &Sender {
        // `of` made one for each kind; the first is a harmless answer to a question that is never asked.
        self.senders.iter().find(|sender| sender.kind == kind).unwrap_or(&self.senders[0])
    }

    /// Says plainly which port is taken, before anything is started.
    fn check_ports(&self, config: &Path) -> Result<(), String> {
        let config = config.display();
        let mut ports = vec![("the gateway", self.gateway), ("the app", self.app)];
        if let AdminAddress::Tcp(address) = self.admin {
            ports.push(("the admin API", address));
        }
        for (who, address) in ports {
            TcpListener::bind(address).map_err(|problem| match problem.kind() {
                std::io::ErrorKind::AddrInUse => format!(
                    "{address} is in use by another program, and {who} needs it: end that program, or choose \
                     another port in {config}"
                ),
                _ => format!("{address}, for {who}: {problem}"),
            })?;
        }
        Ok(())
    }
}

/// Makes the secrets that do not exist yet, readable by their owner only, and reads them all.
fn make_secrets(folder: &Path) -> Result<Vec<(&'static str, Kind, String)>, String> {
    let folder = folder.join("secrets");
    fs::create_dir_all(&folder).map_err(|problem| format!("{}: {problem}", folder.display()))?;
    ROUTES
        .into_iter()
        .map(|(route, kind)| {
            let path = folder.join(route);
            let problem = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
            let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            match made {
                Ok(mut file) => {
                    let random = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new())
                        .map_err(|_| problem(&"no random bytes from the system"))?;
                    writeln!(file, "{}", kind.new_secret(random.expose())).map_err(|e| problem(&e))?;
                }
                Err(exists) if exists.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(other) => return Err(problem(&other)),
            }
            let secret = fs::read_to_string(&path).map_err(|e| problem(&e))?;
            Ok((route, kind, secret.trim_end_matches('\n').to_owned()))
        })
        .collect()
}
