/* Engine.IO and Socket.IO as a client speaks them, the hub's verbs, and the account of what arrived. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "load.h"

/* Copies the string that begins at `from` and ends at a quote. */
static void copy_string(char *to, int capacity, const char *from, const char *end) {
    int n = 0;
    while (from < end && *from != '"' && n < capacity - 1)
        to[n++] = *from++;
    to[n] = 0;
}

static int64_t number_at(const char *p, const char *end) {
    int64_t value = 0;
    while (p < end && *p >= '0' && *p <= '9')
        value = value * 10 + (*p++ - '0');
    return value;
}

static char *find(char *packet, int length, const char *text) { return memmem(packet, length, text, strlen(text)); }

/* ------------------------------------------------------------------------------------ becoming a subscriber */

static void join(struct client *c) {
    char packet[320];
    int n = 2;
    memcpy(packet, "40", 2);
    if (load.named && !c->publisher)
        n = snprintf(packet, sizeof packet, "40{\"client_id\":\"load%d\"}", c->number);
    else if (load.returning && !c->publisher && *c->pid)
        n = snprintf(packet, sizeof packet, "40{\"pid\":\"%s\",\"offset\":\"%s\"}", c->pid, c->offset);
    c->state = JOINING;
    client_send(c, packet, n);
}

static void joined(struct client *c, char *packet, int length) {
    char pid[sizeof c->pid] = "";
    char *found = find(packet, length, "\"pid\":\"");
    if (found)
        copy_string(pid, sizeof pid, found + 7, packet + length);
    c->recovered = load.returning && *pid && !strcmp(pid, c->pid);
    memcpy(c->pid, pid, sizeof pid);
    if (c->publisher || c->recovered) {
        client_ready(c);
        return;
    }
    char verb[96];
    int n = snprintf(verb, sizeof verb, "420[\"subscribe\",{\"room\":\"r%d\"}]", c->number % load.rooms);
    c->state = SUBSCRIBING;
    client_send(c, verb, n);
}

/* --------------------------------------------------------------------------------------- what is delivered */

/* One awaited thing less of message m: a delivery to a reader, or its answer. */
static void settle(int64_t m) {
    if (--load.pending[m % IN_FLIGHT_MOST] == 0)
        load.complete++;
}

/* Moves the client's expectation, and counts it out where it has caught up. */
static void expect(struct client *c, int64_t next) {
    bool was_behind = c->next < published(c);
    c->next = next;
    if (was_behind && next >= published(c))
        load.behind--;
}

/* The stock client keeps the last argument of every event as its offset, if that is a string. */
static void keep_offset(struct client *c, const char *packet, int length) {
    if (length < 6 || packet[length - 1] != ']' || packet[length - 2] != '"')
        return;
    const char *end = packet + length - 2, *begin = memrchr(packet, '"', end - packet);
    int size = begin ? end - begin - 1 : 0;
    if (size > 0 && size < (int)sizeof c->offset) {
        memcpy(c->offset, begin + 1, size);
        c->offset[size] = 0;
    }
}

static int64_t field(char *packet, int length, const char *name) {
    char *found = find(packet, length, name);
    return found ? number_at(found + strlen(name), packet + length) : 0;
}

/* What was received before a gap does not lie in it; on_message looks at what comes behind it. */
static void on_gap(struct client *c, char *packet, int length) {
    char *dropped = find(packet, length, "\"dropped\":");
    load.gaps++;
    c->since_gap = 0;
    c->gap_ends = field(packet, length, "\"before\":\"");
    if (atoll(c->offset) > field(packet, length, "\"after\":\""))
        load.misplaced++;
    if (dropped && dropped[10] >= '0' && dropped[10] <= '9') {
        int64_t count = number_at(dropped + 10, packet + length);
        load.dropped += count;
        expect(c, c->next + count);
    } else {
        load.unknown++;
        c->gap_unknown = true;
    }
}

/* The first message behind a gap: it lies behind its end; without a count, all up to it was lost in the gap. */
static void leave_gap(struct client *c, int64_t number) {
    if (atoll(c->offset) < c->gap_ends)
        load.misplaced++;
    if (c->gap_unknown) {
        load.dropped += number - c->next;
        expect(c, number);
    }
    c->gap_ends = 0;
    c->gap_unknown = false;
}

static void on_message(struct client *c, char *packet, int length, int64_t now) {
    char *mark = memmem(packet, length, "@@", 2), *end = packet + length;
    if (!mark)
        return;
    int64_t sent_at = number_at(mark + 2, end);
    char *hash = memchr(mark, '#', end - mark);
    if (!hash)
        return;
    int64_t m = number_at(hash + 1, end), number = m / load.rooms;
    keep_offset(c, packet, length);
    if (c->gap_ends)
        leave_gap(c, number);
    if (number < c->next) {
        load.repeated++;
        return;
    }
    load.lost += number - c->next;
    expect(c, number + 1);
    c->since_gap++;
    if (c->deaf) {
        load.deaf_deliveries++;
        return;
    }
    load.deliveries++;
    settle(m);
    if (load.measured_from && sent_at >= load.measured_from)
        histogram_add(&load.latency, now - sent_at);
}

static void on_event(struct client *c, char *packet, int length, int64_t now) {
    if (length > 10 && !memcmp(packet, "42[\"hub:", 8)) {
        if (!memcmp(packet + 8, "gap\"", 4))
            on_gap(c, packet, length);
        keep_offset(c, packet, length);
    } else {
        on_message(c, packet, length, now);
    }
}

static void on_answer(struct client *c, char *packet, int length, int64_t now) {
    bool fine = find(packet, length, "\"ok\":true");
    if (c->state == SUBSCRIBING) {
        if (!fine) {
            client_fail(c, "subscribe was refused");
            return;
        }
        c->next = published(c);
        client_ready(c);
    } else if (c->publisher) {
        int64_t m = number_at(packet + 2, packet + length);
        load.acknowledged++;
        if (!fine && load.refused++ == 0)
            fprintf(stderr, "publish was refused: %.*s\n", length, packet);
        settle(m);
        if (load.measured_from && load.sent_at[m % IN_FLIGHT_MOST] >= load.measured_from)
            histogram_add(&load.answers, now - load.sent_at[m % IN_FLIGHT_MOST]);
    } else {
        load.joined++;
        load.refused += !fine;
    }
}

void session_packet(struct client *c, char *packet, int length, int64_t now) {
    if (length < 1)
        return;
    if (packet[0] == '4' && length > 1) {
        if (packet[1] == '2')
            on_event(c, packet, length, now);
        else if (packet[1] == '3')
            on_answer(c, packet, length, now);
        else if (packet[1] == '0' && c->state == JOINING)
            joined(c, packet, length);
        else if (packet[1] == '1' || packet[1] == '4')
            client_fail(c, packet[1] == '1' ? "disconnected by the server" : "CONNECT was refused");
    } else if (packet[0] == '2') {
        load.pings++;
        client_send(c, "3", 1);
    } else if (packet[0] == '0' && c->state == OPENING) {
        char *sid = find(packet, length, "\"sid\":\"");
        if (sid)
            copy_string(c->sid, sizeof c->sid, sid + 7, packet + length);
        join(c);
    }
}

/* ----------------------------------------------------------------------------------------------- publishing */

void session_publish(int size) {
    static struct bytes packet;
    if (packet.capacity < size + 256) {
        packet.capacity = size + 256;
        packet.data = realloc(packet.data, packet.capacity);
    }
    int64_t m = load.sent, now = now_ns();
    int room = m % load.rooms;
    int n = sprintf(packet.data, "42%lld[\"publish\",{\"room\":\"r%d\",\"event\":\"e\",\"data\":\"", (long long)m, room);
    int data = n;
    n += sprintf(packet.data + n, "@@%lld#%lld@", (long long)now, (long long)m);
    while (n - data < size)
        packet.data[n++] = 'x';
    n += sprintf(packet.data + n, "\"}]");
    load.pending[m % IN_FLIGHT_MOST] = load.readers[room] + 1;
    load.sent_at[m % IN_FLIGHT_MOST] = now;
    load.sent++;
    client_send(&load.publishers[room % load.publisher_count], packet.data, n);
}
