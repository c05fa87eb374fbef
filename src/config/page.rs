//! `[page]`

use std::net::SocketAddr;

use super::plan::{PagePlan, Secret};
use super::reader::Table;
use super::secrets;

/// Loopback: nobody but this board can connect, whatever its firewall.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// 16 characters of base64 or hexadecimal are 64 bits or more: beyond guessing at the rate that the page allows.
const SHORTEST_TOKEN: usize = 16;

/// Reads the table; it is there.
pub(super) fn read(table: &Table<'_>) -> PagePlan {
    let address = |text: &str| {
        text.parse().map_err(|_| format!("{text:?} is no address with a port; write such as \"127.0.0.1:8080\""))
    };
    let listen: SocketAddr = table.parsed("listen", address).unwrap_or(DEFAULT_LISTEN);
    let token = token(table);
    let has_token = table.has("token") || table.has("token_file");
    if !listen.ip().is_loopback() && !has_token {
        table.problem(
            "listen",
            format!("{listen} can be reached from other machines, and there is no token; add `token_file = \"…\"`, or listen on 127.0.0.1"),
        );
    }
    let private = table.boolean("private").unwrap_or(false);
    if private && !has_token {
        table.problem("private", "has an effect with a token only; add `token_file = \"…\"`");
    }
    let hosts = table.list("hosts", |_, value| match value.as_str() {
        Some(host) if is_host(host) => Ok(host.to_ascii_lowercase()),
        _ => Err("is no host's name; write such as \"garden.example.org\", without a port".to_owned()),
    });
    PagePlan {
        listen,
        token,
        private,
        hosts: hosts.unwrap_or_default().into_iter().map(|(_, host)| host).collect(),
        photos: table.path("photos"),
    }
}

fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed)
}

fn token(table: &Table<'_>) -> Option<Secret> {
    let key = if table.has("token") { "token" } else { "token_file" };
    let token = secrets::read(table, "token", "token_file", None)?;
    if token.len() < SHORTEST_TOKEN {
        table.problem(
            key,
            format!(
                "is shorter than {SHORTEST_TOKEN} characters and could be guessed; `openssl rand -base64 24` makes one"
            ),
        );
    }
    Some(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;

    fn read(page: &str) -> Result<crate::config::plan::PagePlan, String> {
        let text = format!("[model]\npath = \"m\"\n[[camera]]\nname = \"c\"\ndevice = \"d\"\n[page]\n{page}");
        let plan = parse(&text, Path::new("f.toml"), &|_| None).map_err(|problems| problems.to_string())?;
        Ok(plan.page.expect("a page"))
    }

    #[test]
    fn loopback_needs_no_token_and_everything_else_does() {
        for listen in ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080"] {
            assert!(read(&format!("listen = {listen:?}")).is_ok(), "{listen}");
        }
        for listen in ["0.0.0.0:8080", "192.168.1.5:80", "[::]:8080"] {
            let problem = read(&format!("listen = {listen:?}")).unwrap_err();
            assert!(problem.contains("line 7") || problem.contains(":7"), "{problem}");
            assert!(problem.contains("page.listen") && problem.contains("token_file"), "{problem}");
            assert!(read(&format!("listen = {listen:?}\ntoken = \"0123456789abcdef\"")).is_ok(), "{listen}");
        }
        assert!(read("").unwrap().listen.ip().is_loopback());
    }

    #[test]
    fn what_is_wrong_names_its_remedy_and_never_the_token() {
        for (page, words) in [
            ("listen = \"8080\"", "127.0.0.1:8080"),
            ("token = \"short-secret\"", "openssl rand"),
            ("token_file = \"/nonexistent\"", "cannot read /nonexistent"),
            ("token = \"0123456789abcdef\"\ntoken_file = \"x\"", "keep one of them"),
            ("private = true", "add `token_file"),
            ("hosts = [\"a b\"]", "without a port"),
            ("port = 80", "is no key of [page]"),
        ] {
            let problem = read(page).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("short-secret"), "{page}: {problem}");
        }
        assert!(!format!("{:?}", read("token = \"0123456789abcdef\"").unwrap()).contains("0123456789abcdef"));
    }
}
