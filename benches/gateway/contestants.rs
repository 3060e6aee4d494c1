//! The contestants: the same work, each by its own means. TLS, an allowlist, HMAC-SHA256 over the body compared in
//! constant time, repeats dropped by their delivery id, forwarding over kept connections. Two threads each.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::load::{KEY, SECRET, TARGET};
use super::support::cpu_time;

/// A running contestant in a folder of its own.
pub struct Contestant {
    pub name: &'static str,
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    pub folder: TempDir,
    command: Vec<String>,
    child: Child,
}

/// PEM texts: the root, and a certificate with its key for `localhost`.
pub struct Certificates {
    pub ca: String,
    cert: String,
    key: String,
}

impl Certificates {
    pub fn make() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("a root").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
        let cert = params.signed_by(&key, &issuer).expect("a certificate").pem();
        Self { ca, cert, key: key.serialize_pem() }
    }
}

pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address")
}

/// How Tidegate is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Proxy,
    Buffer {
        concurrency: usize,
    },
    /// Events with one value of [`KEY`] in order.
    Ordered {
        concurrency: usize,
    },
    /// Nothing is kept for longer than a minute: what is on disk can be flat.
    Forgetful {
        concurrency: usize,
    },
}

/// The folder that contestants write in; a disk, not a tmpfs.
fn folder() -> TempDir {
    let parent =
        std::env::var_os("DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&parent).expect("the folder to write in");
    tempfile::tempdir_in(parent).expect("a folder")
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("write a file");
    path.display().to_string()
}

pub fn haproxy(certificates: &Certificates, app: SocketAddr) -> Contestant {
    let (folder, address) = (folder(), free_address());
    let pem = write(folder.path(), "server.pem", &format!("{}{}", certificates.cert, certificates.key));
    let allow = write(folder.path(), "allow.lst", "10.0.0.0/8\n127.0.0.0/8\n192.0.2.0/24\n");
    let key = base64::engine::general_purpose::STANDARD.encode(SECRET);
    let config = format!(
        "global
  nbthread 2
  maxconn 4000
  tune.bufsize 32768
  tune.ssl.cachesize 0
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 10s
  http-reuse always
frontend hooks
  bind {address} ssl crt {pem} alpn http/1.1
  http-request deny status 403 unless {{ src -f {allow} }}
  http-request deny status 404 unless {{ path {TARGET} }}
  http-request wait-for-body time 10s
  http-request set-var(txn.made) req.body,hmac(sha256,{key}),hex,lower
  http-request set-var(txn.given) req.hdr(x-hub-signature-256),field(2,=)
  http-request deny status 401 unless {{ var(txn.made),secure_memcmp(txn.given) }}
  http-request track-sc0 req.hdr(x-github-delivery) table seen
  http-request sc-inc-gpc0(0)
  http-request return status 200 if {{ sc0_get_gpc0(seen) gt 1 }}
  default_backend app
backend seen
  stick-table type string len 48 size 4m expire 1h store gpc0
backend app
  server app {app} maxconn 256
"
    );
    let config = write(folder.path(), "haproxy.cfg", &config);
    let program = if Path::new("/usr/sbin/haproxy").exists() { "/usr/sbin/haproxy" } else { "haproxy" };
    Contestant::start(
        "HAProxy",
        folder,
        vec![program.into(), "-db".into(), "-f".into(), config],
        address,
        None,
    )
}

pub fn nginx(certificates: &Certificates, app: SocketAddr) -> Contestant {
    let (folder, address) = (folder(), free_address());
    let cert = write(folder.path(), "server.pem", &certificates.cert);
    let key = write(folder.path(), "server.key", &certificates.key);
    let place = folder.path().display();
    let config = format!(
        r#"load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
worker_processes 2;
daemon off;
error_log {place}/error.log warn;
pid {place}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  client_body_buffer_size 64k;
  client_max_body_size 10m;
  keepalive_requests 100000000;
  lua_shared_dict seen 512m;
  init_by_lua_block {{
    local ffi = require "ffi"
    ffi.cdef [[
      const void *EVP_sha256(void);
      unsigned char *HMAC(const void *md, const void *key, int key_len, const unsigned char *data, size_t len,
                          unsigned char *out, unsigned int *out_len);
    ]]
    local out, length, sha256 = ffi.new("unsigned char[64]"), ffi.new("unsigned int[1]"), ffi.C.EVP_sha256()
    local hex = {{}}
    for byte = 0, 255 do hex[byte] = string.format("%02x", byte) end
    local parts = {{}}
    function signature(secret, body)
      ffi.C.HMAC(sha256, secret, #secret, body, #body, out, length)
      for i = 0, 31 do parts[i + 1] = hex[out[i]] end
      return table.concat(parts)
    end
    local bit = require "bit"
    function same(a, b)
      if #a ~= #b then return false end
      local difference = 0
      for i = 1, #a do difference = bit.bor(difference, bit.bxor(a:byte(i), b:byte(i))) end
      return difference == 0
    end
  }}
  upstream app {{ server {app}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen {address} ssl;
    ssl_protocols TLSv1.3;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    location = {TARGET} {{
      allow 10.0.0.0/8; allow 127.0.0.0/8; allow 192.0.2.0/24; deny all;
      access_by_lua_block {{
        ngx.req.read_body()
        local headers = ngx.req.get_headers()
        local body = ngx.req.get_body_data() or ""
        local given = headers["x-hub-signature-256"] or ""
        if not same("sha256=" .. signature("{SECRET}", body), given) then return ngx.exit(401) end
        local added, problem = ngx.shared.seen:add(headers["x-github-delivery"], true, 3600)
        if not added and problem == "exists" then return ngx.exit(200) end
      }}
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_pass http://app;
    }}
  }}
}}
"#
    );
    let config = write(folder.path(), "nginx.conf", &config);
    let command = vec!["/usr/sbin/nginx".into(), "-p".into(), place.to_string(), "-c".into(), config];
    Contestant::start("nginx+Lua", folder, command, address, None)
}

pub fn tidegate(name: &'static str, mode: Mode, certificates: &Certificates, app: SocketAddr) -> Contestant {
    let (folder, address, admin) = (folder(), free_address(), free_address());
    write(folder.path(), "server.pem", &certificates.cert);
    write(folder.path(), "server.key", &certificates.key);
    write(folder.path(), "secret", SECRET);
    let order = format!("order: {{ by: 'header:{KEY}', on_failure: block }}, ");
    let (mode, concurrency, order, keep, window) = match mode {
        Mode::Proxy => ("proxy", 1024, "", "", "1h"),
        Mode::Buffer { concurrency } => ("buffer", concurrency, "", "", "1h"),
        Mode::Ordered { concurrency } => ("buffer", concurrency, order.as_str(), "", "1h"),
        Mode::Forgetful { concurrency } => ("buffer", concurrency, "", ", keep_delivered: 1m", "1m"),
    };
    let config = format!(
        "threads: 2
listeners:
  - address: {address}
    tls: {{ cert: server.pem, key: server.key }}
admin: {{ listen: {admin} }}
limits: {{ requests_per_connection: 100000000 }}
log: {{ format: json, level: warn }}
buffer: {{ path: buffer, max_size: 100GiB, min_free: 64MiB{keep} }}
routes:
  - name: github
    path: {TARGET}
    provider: github
    secret: file:secret
    idempotency: {{ key: header:X-GitHub-Delivery, window: {window} }}
    allow: [10.0.0.0/8, 127.0.0.0/8, 192.0.2.0/24]
    mode: {mode}
    forward_to:
      - {{ name: app, upstreams: ['http://{app}'], concurrency: {concurrency}, {order}timeout: 1h }}
"
    );
    write(folder.path(), "tidegate.yaml", &config);
    let command =
        [env!("CARGO_BIN_EXE_tidegate"), "run", "--config", "tidegate.yaml"].map(str::to_owned).to_vec();
    Contestant::start(name, folder, command, address, Some(admin))
}

impl Contestant {
    fn start(
        name: &'static str,
        folder: TempDir,
        command: Vec<String>,
        address: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> Self {
        let child = spawn(&command, folder.path());
        let mut contestant = Self { name, address, admin, folder, command, child };
        contestant.wait();
        contestant
    }

    /// Until it accepts connections.
    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().expect("its state");
            let log = || std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
            assert!(ended.is_none(), "{} ended with {ended:?}: {}", self.name, log());
            assert!(Instant::now() < deadline, "{} does not listen: {}", self.name, log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it and starts it again; returns the time from start to listening.
    pub fn crash_and_restart(&mut self) -> Duration {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        let begin = Instant::now();
        self.child = spawn(&self.command, self.folder.path());
        self.wait();
        begin.elapsed()
    }

    /// Itself and its workers.
    pub fn pids(&self) -> Vec<u32> {
        let own = self.child.id();
        let children =
            std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    pub fn cpu(&self) -> Duration {
        self.pids().into_iter().map(cpu_time).sum()
    }

    /// Resident memory, in MiB.
    pub fn rss(&self) -> u64 {
        let of = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_owned();
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
        };
        self.pids().into_iter().map(of).sum()
    }

    /// The sum of a metric's samples, from Tidegate's admin API.
    pub fn metric(&self, name: &str) -> f64 {
        use std::io::{Read, Write};
        let Some(admin) = self.admin else { return f64::NAN };
        let mut text = String::new();
        let asked = TcpStream::connect(admin).and_then(|mut stream| {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            stream.read_to_string(&mut text)
        });
        asked.expect("the admin API answers");
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

fn spawn(command: &[String], folder: &Path) -> Child {
    let output = std::fs::File::create(folder.join("output")).expect("a file for its output");
    Command::new(&command[0])
        .args(&command[1..])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a second handle"))
        .stderr(output)
        .spawn()
        .unwrap_or_else(|problem| panic!("{}: {problem} (see `.ci/setup bench`)", command[0]))
}

impl Drop for Contestant {
    fn drop(&mut self) {
        // Workers first: a killed master leaves them behind.
        for pid in self.pids().into_iter().rev() {
            if let Ok(pid) = i32::try_from(pid) {
                // SAFETY: two integers; the processes are our child and its children.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        let _ = self.child.wait();
    }
}
