//! Bodies sent back and digested.

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::mock::answer::hex;

#[tokio::test]
async fn bodies_are_echoed_and_digested() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    for size in [0, 1, 65_535, 65_536, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let body: Vec<u8> = (0..size).map(|i: usize| ((i * 31) >> 3) as u8).collect();
        let hash = hex(ring::digest::digest(&ring::digest::SHA256, &body).as_ref());

        let mut request = h2_post("/v1/echo/anything", body.clone());
        let kind = "multipart/form-data; boundary=x".parse().unwrap();
        request.headers_mut().insert("content-type", kind);
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(
            answer.headers()["content-type"],
            "multipart/form-data; boundary=x"
        );
        assert_eq!(answer.headers()["mock-body-bytes"], size.to_string());
        let held = answer.headers().get("mock-body-sha256");
        assert_eq!(held.is_some(), size <= 1 << 20);
        assert!(held.is_none_or(|held| *held == hash));
        assert!(answer.into_body().collect().await.unwrap().to_bytes() == body);

        let answer = client.send_request(h2_post("/digest", body)).await.unwrap();
        assert_eq!(answer.headers()["mock-body-sha256"], hash);
        assert_eq!(
            text(answer).await,
            format!(r#"{{"bytes":{size},"sha256":"{hash}"}}"#)
        );
    }
}

#[tokio::test]
async fn a_large_chunked_body_is_echoed_while_it_comes() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    let head = "POST /v1/echo HTTP/1.1\r\nhost: mock\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 600_000, "x".repeat(600_000));
    client.write_all(chunk.as_bytes()).await.unwrap();
    client.write_all(chunk.as_bytes()).await.unwrap();
    let early = read_until(&mut client, "xxx").await;
    assert!(early.to_lowercase().contains("transfer-encoding: chunked"));

    let (mut reader, mut writer) = client.into_split();
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(reader.read_buf(&mut read).await.unwrap(), 0);
        }
        read.iter().filter(|byte| **byte == b'x').count()
    });
    writer.write_all(chunk.as_bytes()).await.unwrap();
    writer.write_all(b"0\r\n\r\n").await.unwrap();
    let early = early.split_once("\r\n\r\n").unwrap().1.matches('x').count();
    assert_eq!(early + reading.await.unwrap(), 1_800_000);
}
