"""What is published as data: vocabulary, corpus, prior knowledge, and the streaming reader."""
