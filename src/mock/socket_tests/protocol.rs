//! Framings, keep-alive, h2c, and the end of the server.

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    for _ in 0..3 {
        client
            .write_all(post_chat("mock", false).as_bytes())
            .await
            .unwrap();
        let answer = read_until(&mut client, "fp_mock\"}").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.to_lowercase().contains("\r\nx-request-id: mock-"),
            "{answer}"
        );
        assert!(
            !answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );

        client
            .write_all(post_chat("mock", true).as_bytes())
            .await
            .unwrap();
        let answer = read_until(&mut client, "\r\n0\r\n\r\n").await;
        assert!(
            answer
                .to_lowercase()
                .contains("\r\ntransfer-encoding: chunked"),
            "{answer}"
        );
        assert!(
            answer.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    let both = post_chat("mock-latency-30ms-tokens-1", false) + &post_chat("mock-tokens-2", false);
    client.write_all(both.as_bytes()).await.unwrap();
    let mut answers = String::new();
    while answers.matches("fp_mock\"}").count() < 2 {
        answers += &read_until(&mut client, "fp_mock\"}").await;
    }
    let (first, second) = (
        answers.find("tokens-1").unwrap(),
        answers.find("tokens-2").unwrap(),
    );
    assert!(first < second, "{answers}");
}

#[tokio::test]
async fn close_and_http_1_0_are_respected() {
    let mock = Mock::start().await;
    let request = post_chat("mock", true);
    for request in [
        request.replace("host: mock", "host: mock\r\nconnection: close"),
        request.replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut client = mock.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut client).await;
        assert!(answer.contains("data: [DONE]\n\n"), "{answer}");
        let chunked = answer.to_lowercase().contains("transfer-encoding: chunked");
        assert_eq!(chunked, request.contains("HTTP/1.1"), "{answer}");
    }
}

#[tokio::test]
async fn a_short_request_is_not_taken_for_a_preface() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    client.write_all(b"P").await.unwrap();
    client.write_all(b"UT / HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(answer.contains(" 404 Not Found\r\n"), "{answer}");
    assert!(
        answer.contains("the mock does not serve PUT /;"),
        "{answer}"
    );

    let mut client = mock.connect().await;
    client
        .write_all(b"nonsense that is not HTTP\r\n\r\n")
        .await
        .unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn expect_continue_is_answered_before_the_body_comes() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    let request = post_chat("mock", false);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let head = format!("{head}\r\nexpect: 100-continue\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let go_on = read_until(&mut client, "\r\n\r\n").await;
    assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
    client.write_all(body.as_bytes()).await.unwrap();
    let answer = read_until(&mut client, "fp_mock\"}").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn h2_with_prior_knowledge_says_the_same() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    for stream in [false, true] {
        let answer = client.send_request(h2_chat("mock", stream)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let over_h2 = text(answer).await;

        let mut h1 = mock.connect().await;
        let request = post_chat("mock", stream).replace("HTTP/1.1", "HTTP/1.0");
        h1.write_all(request.as_bytes()).await.unwrap();
        let over_h1 = read_to_end(&mut h1).await;
        assert_eq!(over_h1.split_once("\r\n\r\n").unwrap().1, over_h2);
    }
}

#[tokio::test]
async fn h2_streams_do_not_wait_for_each_other() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    let silent = client.send_request(h2_chat("mock-silent", false));
    let answer = client
        .clone()
        .send_request(h2_chat("mock", false))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    drop(silent);
}

#[tokio::test]
async fn dropping_the_server_finishes_answers_and_closes_idle_connections() {
    let mock = Mock::start().await;
    let mut idle = mock.connect().await;
    idle.write_all(post_chat("mock", false).as_bytes())
        .await
        .unwrap();
    read_until(&mut idle, "fp_mock\"}").await;
    let mut busy = mock.connect().await;
    busy.write_all(post_chat("mock-drip-20ms", true).as_bytes())
        .await
        .unwrap();
    read_until(&mut busy, "data: ").await;
    drop(mock);
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(
        read_to_end(&mut busy)
            .await
            .ends_with("data: [DONE]\n\n\r\n0\r\n\r\n")
    );
}
