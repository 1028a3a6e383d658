//! An upload of a gigabyte.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: `cargo xtask ci` runs it"]
async fn an_upload_of_a_gigabyte_takes_constant_memory() {
    crate::uploads::upload_in_constant_memory(1 << 30).await;
}
