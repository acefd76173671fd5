mod tls;
mod tunnel;
