/* A load generator for Socket.IO servers, told by lines on standard input what to do next.
 *
 * One thread, one epoll. What the server is measured by is taken here, at the edges of each window: its CPU time, what
 * arrived, and how long it took. main.c lists the commands.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* --------------------------------------------------------------------------------------------- measure.c */

#define MAX_SERVERS 8

int64_t now_ns(void);

/* CPU time of the server processes and of this one, in seconds. */
struct cpu {
    double server[MAX_SERVERS];
    double own;
};
struct cpu cpu_read(void);
void cpu_watch(int pid); /* counts this process from now on */
void cpu_print(const struct cpu *from, const struct cpu *to); /* "cpu": […], "own_cpu": … */

/* Times in nanoseconds, counted in steps of 0.4 %. */
#define HISTOGRAM_STEPS 256
struct histogram {
    uint32_t count[64 * HISTOGRAM_STEPS];
    int64_t total, most;
};
void histogram_clear(struct histogram *h);
void histogram_add(struct histogram *h, int64_t ns);
void histogram_print(const char *name, const struct histogram *h); /* "name": {…}, in milliseconds */

/* --------------------------------------------------------------------------------------------- client.c */

enum state { GONE, CONNECTING, UPGRADING, OPENING, JOINING, SUBSCRIBING, READY };

struct bytes {
    char *data;
    int length, capacity;
};

struct client {
    int fd;
    enum state state;
    int number;     /* of a subscriber, from 0; its room is number % rooms */
    bool publisher; /* publishes, subscribes to nothing */
    bool deaf;      /* never reads once it is ready, until told to; not waited for */
    bool polling;   /* HTTP long-polling instead of WebSocket */
    bool posting;   /* the answer awaited is to a POST */
    bool recovered; /* the server continued its session at the last return */
    struct bytes in, out;
    struct bytes post;  /* packets that wait for the next POST */
    char sid[64];       /* Engine.IO session, for polling */
    char pid[160];      /* what proves the session to the server, and the last offset heard of it */
    char offset[64];
    int64_t next;       /* number, within its room, of the message expected next */
    int64_t since_gap;  /* messages received since the last gap was told */
    int64_t gap_ends;   /* the offset that the gap just told ends before; 0: the last thing was no gap */
    bool gap_unknown;   /* that gap came without a count */
};

void client_open(struct client *c);
void client_send(struct client *c, const char *packet, int length); /* one Engine.IO packet */
void client_cut(struct client *c, bool reset);
void client_listen(struct client *c, bool reading);
void client_ready(struct client *c); /* to READY, and counted */
void client_fail(struct client *c, const char *why);
void turn(int timeout_ms); /* handles what has happened on all sockets */
bool command_read(char *line, int capacity); /* waits for a line on standard input; false: it ended */

/* --------------------------------------------------------------------------------------------- session.c */

/* Handles one Engine.IO packet that arrived at the time `now`. */
void session_packet(struct client *c, char *packet, int length, int64_t now);
void session_publish(int size); /* sends the next message, `size` bytes of data */

/* --------------------------------------------------------------------------------------------- commands.c */

bool command_run(const char *line); /* prints one line of JSON; false: the command is unknown */

/* --------------------------------------------------------------------------------------------- probe.c */

void probe_turn(int64_t now); /* sends a probe where one is due, and reads its answer */
void probe_set(bool on);

/* ------------------------------------------------------------------------------------------------------- */

/* Messages that may be under way at once. */
#define IN_FLIGHT_MOST 65536

/* What all clients share. */
struct load {
    int port, epoll;
    struct client *subscribers, *publishers;
    int subscriber_count, publisher_count, rooms;
    int opened, ready, failed, gone; /* of the present connect or return; gone: cut by the server */
    bool returning;                  /* clients resume their sessions when they connect */
    bool named;                      /* clients give a name, and return neither pid nor offset */
    int *readers;                    /* of each room: those whose deliveries are waited for */

    int64_t sent;      /* messages published so far; message m goes to room m % rooms */
    int64_t complete;  /* those that every reader has and the server has acknowledged */
    int32_t pending[IN_FLIGHT_MOST]; /* of message m, at m % IN_FLIGHT_MOST: deliveries and answer still awaited */
    int64_t acknowledged, refused;
    int64_t joined;    /* rooms that subscribers have joined beside their first one */
    int64_t deliveries, deaf_deliveries; /* to readers, to deaf ones */
    int64_t lost, repeated;              /* by their numbers, gaps that were told aside */
    int64_t gaps, dropped, unknown;      /* gaps told, messages in them, gaps without a count */
    int64_t misplaced;                   /* gaps with something received inside of them */
    int64_t pings;
    int behind;        /* clients that have yet to catch up; kept while returning or reading again */

    int64_t measured_from;    /* messages sent since then count for latency; 0: none */
    struct histogram latency; /* from sending to each delivery */
    struct histogram answers; /* from sending to the acknowledgement */
    int64_t sent_at[IN_FLIGHT_MOST];
    struct histogram probes;  /* answers of the prober's requests */
};
extern struct load load;

/* Messages published so far into a client's room. */
static inline int64_t published(const struct client *c) {
    int64_t room = c->number % load.rooms;
    return (load.sent - room + load.rooms - 1) / load.rooms;
}

#endif
