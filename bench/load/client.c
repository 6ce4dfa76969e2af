/* Sockets: connecting, HTTP, WebSocket frames and long-polling, up to whole Engine.IO packets. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define READ_SIZE (256 * 1024)
/* A deaf client's kernel takes little, so that it is the server that has to hold or park what waits. */
#define DEAF_BUFFER (16 * 1024)

/* What is read lands here, behind what an earlier read left of an unfinished frame. */
static char *arrived;
static int arrived_capacity;

static void append(struct bytes *to, const void *data, int length) {
    if (to->length + length > to->capacity) {
        to->capacity = 2 * (to->length + length);
        to->data = realloc(to->data, to->capacity);
    }
    memcpy(to->data + to->length, data, length);
    to->length += length;
}

static void forget(struct bytes *b) {
    free(b->data);
    *b = (struct bytes){0};
}

static void watch(struct client *c, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(load.epoll, EPOLL_CTL_MOD, c->fd, &e);
}

static void flush(struct client *c) {
    int done = 0;
    while (done < c->out.length) {
        ssize_t n = send(c->fd, c->out.data + done, c->out.length - done, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) {
                watch(c, EPOLLIN | EPOLLOUT);
                break;
            }
            client_fail(c, strerror(errno));
            return;
        }
        done += n;
    }
    c->out.length -= done;
    memmove(c->out.data, c->out.data + done, c->out.length);
}

/* ------------------------------------------------------------------------------ the life of a connection */

void client_open(struct client *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("socket");
        exit(2);
    }
    int one = 1, small = DEAF_BUFFER;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->deaf)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(load.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->in.length = c->out.length = c->post.length = 0;
    c->posting = c->recovered = false;
    c->state = CONNECTING;
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
    epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->fd, &e);
    if (connect(c->fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        client_fail(c, strerror(errno));
}

void client_ready(struct client *c) {
    c->state = READY;
    load.ready++;
    if (c->publisher)
        return;
    if (c->deaf)
        client_listen(c, false);
    else
        load.readers[c->number % load.rooms]++;
}

void client_listen(struct client *c, bool reading) { watch(c, reading ? EPOLLIN : 0); }

void client_cut(struct client *c, bool reset) {
    if (c->state == GONE)
        return;
    if (c->state == READY && !c->publisher && !c->deaf)
        load.readers[c->number % load.rooms]--;
    if (reset) {
        struct linger none = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    close(c->fd);
    c->state = GONE;
    forget(&c->in);
    forget(&c->out);
    forget(&c->post);
}

void client_fail(struct client *c, const char *why) {
    static int told;
    if (told++ < 5)
        fprintf(stderr, "%s %d: %s\n", c->publisher ? "publisher" : "subscriber", c->number, why);
    if (c->state == READY)
        load.gone++;
    else
        load.failed++;
    client_cut(c, false);
}

/* ------------------------------------------------------------------------------------------------ sending */

static void send_frame(struct client *c, const char *packet, int length) {
    static const unsigned char mask[4] = {0x5a, 0xc3, 0x17, 0x8e};
    unsigned char head[14] = {0x81};
    int n = 2;
    if (length < 126) {
        head[1] = 0x80 | length;
    } else if (length < 65536) {
        head[1] = 0x80 | 126;
        head[n++] = length >> 8;
        head[n++] = length;
    } else {
        head[1] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            head[n++] = (uint64_t)length >> shift;
    }
    memcpy(head + n, mask, 4);
    append(&c->out, head, n + 4);
    append(&c->out, packet, length);
    char *body = c->out.data + c->out.length - length;
    for (int i = 0; i < length; i++)
        body[i] ^= mask[i & 3];
    flush(c);
}

static void send_request(struct client *c) {
    static int64_t stamp; /* stock clients tell every request apart, against caches */
    char head[512];
    c->posting = c->post.length > 0;
    int n = snprintf(head, sizeof head,
                     "%s /socket.io/?EIO=4&transport=polling&t=%llx%s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n",
                     c->posting ? "POST" : "GET", (long long)++stamp | 1ll << 40, *c->sid ? "&sid=" : "", c->sid,
                     load.port);
    if (c->posting)
        n += snprintf(head + n, sizeof head - n, "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n",
                      c->post.length);
    n += snprintf(head + n, sizeof head - n, "\r\n");
    append(&c->out, head, n);
    append(&c->out, c->post.data, c->post.length);
    c->post.length = 0;
    flush(c);
}

void client_send(struct client *c, const char *packet, int length) {
    if (!c->polling) {
        send_frame(c, packet, length);
        return;
    }
    /* It leaves as soon as the answer that is being read has been handled. */
    if (c->post.length)
        append(&c->post, "\x1e", 1);
    append(&c->post, packet, length);
}

static void greet(struct client *c) {
    if (c->polling) {
        c->state = OPENING;
        *c->sid = 0;
        send_request(c);
        return;
    }
    char request[512];
    int n = snprintf(request, sizeof request,
                     "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                     "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                     load.port);
    c->state = UPGRADING;
    append(&c->out, request, n);
    flush(c);
}

/* ---------------------------------------------------------------------------------------------- receiving */

/* Each of these takes what is whole from the start of `data` and returns how many bytes that were. */

static int take_upgrade(struct client *c, char *data, int length) {
    char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(data, "HTTP/1.1 101", 12)) {
        data[40] = 0;
        client_fail(c, data);
        return 0;
    }
    c->state = OPENING;
    return end + 4 - data;
}

static int take_frames(struct client *c, char *data, int length, int64_t now) {
    int done = 0;
    while (length - done >= 2) {
        unsigned char *frame = (unsigned char *)data + done;
        int head = 2;
        uint64_t size = frame[1] & 127;
        if (size >= 126) {
            int digits = size == 126 ? 2 : 8;
            head += digits;
            if (length - done < head)
                break;
            size = 0;
            for (int i = 0; i < digits; i++)
                size = size << 8 | frame[2 + i];
        }
        if ((uint64_t)(length - done) < head + size)
            break;
        done += head + size;
        if ((frame[0] & 15) == 8) {
            client_fail(c, "closed by the server");
        } else if ((frame[0] & 15) == 1) {
            session_packet(c, (char *)frame + head, size, now);
        }
        if (c->state == GONE)
            break;
    }
    return done;
}

static int take_answer(struct client *c, char *data, int length, int64_t now) {
    char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    *end = 0;
    char *field = strcasestr(data, "\r\ncontent-length:");
    int head = end + 4 - data, size = field ? atoi(field + 17) : 0;
    bool fine = !memcmp(data, "HTTP/1.1 200", 12);
    *end = '\r';
    if (length < head + size)
        return 0;
    if (!fine || !field) {
        data[40] = 0;
        client_fail(c, data);
        return 0;
    }
    if (!c->posting) {
        char *packet = data + head, *stop = packet + size;
        while (packet < stop && c->state != GONE) {
            char *next = memchr(packet, '\x1e', stop - packet);
            if (!next)
                next = stop;
            session_packet(c, packet, next - packet, now);
            packet = next + 1;
        }
    }
    if (c->state != GONE)
        send_request(c);
    return head + size;
}

static void on_readable(struct client *c) {
    int kept = c->in.length;
    if (kept + READ_SIZE + 1 > arrived_capacity) {
        arrived_capacity = kept + 2 * READ_SIZE;
        arrived = realloc(arrived, arrived_capacity);
    }
    ssize_t n = recv(c->fd, arrived + kept, READ_SIZE, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        client_fail(c, n ? strerror(errno) : "cut by the server");
        return;
    }
    memcpy(arrived, c->in.data, kept);
    c->in.length = 0;
    int64_t now = now_ns();
    int length = kept + n, done = 0;
    if (c->polling) {
        done = take_answer(c, arrived, length, now);
    } else {
        if (c->state == UPGRADING)
            done = take_upgrade(c, arrived, length);
        if (c->state > UPGRADING)
            done += take_frames(c, arrived + done, length - done, now);
    }
    if (c->state != GONE && done < length)
        append(&c->in, arrived + done, length - done);
    else if (c->in.capacity)
        forget(&c->in);
}

static void on_writable(struct client *c) {
    watch(c, EPOLLIN);
    if (c->state == CONNECTING)
        greet(c);
    else
        flush(c);
}

void turn(int timeout_ms) {
    struct epoll_event events[512];
    int n = epoll_wait(load.epoll, events, 512, timeout_ms);
    for (int i = 0; i < n; i++) {
        struct client *c = events[i].data.ptr;
        if (!c && events[i].events & EPOLLHUP)
            exit(1); /* nobody is left to give commands */
        if (!c || c->state == GONE)
            continue; /* a command waits, or the client was cut earlier in this turn */
        if (events[i].events & EPOLLOUT)
            on_writable(c);
        if (c->state != GONE && c->state != CONNECTING && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(c);
    }
    probe_turn(now_ns());
}

bool command_read(char *line, int capacity) {
    int length = 0;
    for (;;) {
        ssize_t n = read(STDIN_FILENO, line + length, 1);
        if (n == 0)
            return false;
        if (n < 0) {
            turn(20);
        } else if (line[length] == '\n') {
            line[length] = 0;
            return true;
        } else if (length < capacity - 1) {
            length++;
        }
    }
}
