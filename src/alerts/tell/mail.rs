//! A notice as a mail.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::TellError;
use crate::alerts::Notice;
use crate::config::{Mail, MailSecurity};

/// For each command of the exchange.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mailer {
    pub fn new(mail: &Mail) -> Result<Self, String> {
        let parameters = || -> Result<TlsParameters, String> {
            let mut builder = TlsParameters::builder(mail.host.clone());
            if let Some(ca) = &mail.ca {
                let bad = |problem: &dyn std::fmt::Display| format!("{}: {problem}", ca.display());
                let pem = std::fs::read(ca).map_err(|error| bad(&error))?;
                builder =
                    builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|error| bad(&error))?);
            }
            builder.build_rustls().map_err(|error| error.to_string())
        };
        let tls = match mail.security {
            MailSecurity::StartTls => Tls::Required(parameters()?),
            MailSecurity::Tls => Tls::Wrapper(parameters()?),
            MailSecurity::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(mail.host.clone())
            .port(mail.port)
            .tls(tls)
            .timeout(Some(TIMEOUT));
        if let Some((user, password)) = &mail.credentials {
            let password = String::from_utf8(password.expose().to_vec())
                .map_err(|_| "the password is not UTF-8 text".to_owned())?;
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        let mailbox = |text: &String| text.parse().map_err(|error| format!("{text}: {error}"));
        Ok(Self {
            transport: builder.build(),
            from: mailbox(&mail.from)?,
            to: mail.to.iter().map(mailbox).collect::<Result<_, _>>()?,
        })
    }

    pub async fn send(&self, notice: &Notice) -> Result<(), TellError> {
        let message = self.message(notice).map_err(|error| TellError(error.to_string()))?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) => Err(TellError(with_causes(&error))),
        }
    }

    fn message(&self, notice: &Notice) -> Result<Message, lettre::error::Error> {
        let domain = self.from.email.domain();
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(notice.title())
            .message_id(Some(format!("<{}@{domain}>", notice.id)));
        for to in &self.to {
            message = message.to(to.clone());
        }
        message.header(ContentType::TEXT_PLAIN).body(notice.text())
    }
}

/// The library's own text leaves out what the server said.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}
