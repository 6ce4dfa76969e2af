/* A prober: every five milliseconds a request that needs nothing but the server's event loop. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define INTERVAL_NS 5000000

static int fd = -1;
static int64_t due, asked;

void probe_set(bool on) {
    if (fd >= 0)
        close(fd);
    fd = -1;
    if (!on)
        return;
    histogram_clear(&load.probes);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(load.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (void *)&to, sizeof to) < 0)
        perror("prober");
    due = now_ns();
    asked = 0;
}

void probe_turn(int64_t now) {
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    char answer[4096];
    if (fd < 0)
        return;
    if (asked && recv(fd, answer, sizeof answer, MSG_DONTWAIT) > 0) {
        histogram_add(&load.probes, now - asked);
        asked = 0;
    }
    if (!asked && now >= due) {
        asked = now;
        due = now + INTERVAL_NS;
        if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0)
            probe_set(false);
    }
}
