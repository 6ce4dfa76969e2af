/* What a server can do at best that sends each delivery by itself: one send() per subscriber and message, and nothing else.
 *
 * Everybody who subscribes is in the one room. Understands just enough of WebSocket, Engine.IO and Socket.IO for the load
 * generator, whose WebSocket key is always the same. Prints the port that it listens on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 65536
#define FRAME_MOST (READ_SIZE + 128)

struct peer {
    int fd;
    bool greeted;
    int kept; /* bytes of an unfinished request or frame */
    unsigned char *in;
};

static int epoll, members[65536], member_count;

static void send_all(int fd, const char *data, int length) {
    while (length > 0) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return;
        if (n > 0) {
            data += n;
            length -= n;
        }
    }
}

static int frame(char *to, const char *text, int length) {
    int n = 2;
    to[0] = (char)0x81;
    if (length < 126) {
        to[1] = length;
    } else {
        to[1] = 126;
        to[n++] = length >> 8;
        to[n++] = length;
    }
    memcpy(to + n, text, length);
    return n + length;
}

static void reply(int fd, const char *text) {
    char data[256];
    send_all(fd, data, frame(data, text, strlen(text)));
}

/* 42<id>["publish",{…,"data":<string>}]: everybody gets 42["e",<string>], each by a send() of its own. */
static void publish(int fd, char *text, int length) {
    static char packet[FRAME_MOST], data[FRAME_MOST];
    char *value = memmem(text, length, "\"data\":", 7), answer[64];
    if (!value)
        return;
    value += 7;
    int n = sprintf(packet, "42[\"e\",%.*s]", (int)(text + length - 2 - value), value);
    n = frame(data, packet, n);
    for (int i = 0; i < member_count; i++)
        send_all(members[i], data, n);
    sprintf(answer, "43%lld[{\"ok\":true}]", atoll(text + 2));
    reply(fd, answer);
}

static void on_text(int fd, char *text, int length) {
    if (length >= 2 && !memcmp(text, "40", 2)) {
        reply(fd, "40{\"sid\":\"s\"}");
    } else if (length > 2 && !memcmp(text, "42", 2)) {
        if (memmem(text, length < 40 ? length : 40, "\"publish\"", 9)) {
            publish(fd, text, length);
        } else {
            members[member_count++] = fd;
            reply(fd, "430[{\"ok\":true}]");
        }
    }
}

static int take_frame(struct peer *p, unsigned char *data, int length) {
    int head = 2, size = length < 2 ? 0 : data[1] & 127;
    if (size == 126) {
        head = 4;
        size = length < 4 ? 0 : data[2] << 8 | data[3];
    }
    if (length < head + 4 || length < head + 4 + size)
        return 0;
    unsigned char *mask = data + head, *body = mask + 4;
    for (int i = 0; i < size; i++)
        body[i] ^= mask[i & 3];
    on_text(p->fd, (char *)body, size);
    return head + 4 + size;
}

static int take_request(struct peer *p, unsigned char *data, int length) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    unsigned char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    send_all(p->fd, answer, sizeof answer - 1);
    reply(p->fd, "0{\"sid\":\"s\",\"upgrades\":[],\"pingInterval\":25000,\"pingTimeout\":20000,\"maxPayload\":1000000}");
    p->greeted = true;
    return end + 4 - data;
}

static void on_readable(struct peer *p) {
    if (!p->in)
        p->in = malloc(2 * READ_SIZE + 128);
    ssize_t n = recv(p->fd, p->in + p->kept, READ_SIZE, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close(p->fd);
        return;
    }
    int length = p->kept + n, done = 0, more;
    while ((more = p->greeted ? take_frame(p, p->in + done, length - done) : take_request(p, p->in + done, length - done)))
        done += more;
    p->kept = length - done;
    memmove(p->in, p->in + done, p->kept);
}

int main(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    if (bind(listener, (void *)&here, size) < 0 || listen(listener, 4096) < 0) {
        perror("listen");
        return 2;
    }
    getsockname(listener, (void *)&here, &size);
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN});
    for (;;) {
        struct epoll_event events[512];
        int n = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < n; i++) {
            struct peer *p = events[i].data.ptr;
            if (p) {
                on_readable(p);
                continue;
            }
            p = calloc(1, sizeof *p);
            p->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            epoll_ctl(epoll, EPOLL_CTL_ADD, p->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = p});
        }
    }
}
