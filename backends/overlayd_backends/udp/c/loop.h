/* The loop around an engine: a thread for each direction carries packets between a TUN device and a UDP socket.
 *
 * Each drains its descriptor and then sleeps in poll, until there is more to read, or a table to take up, or
 * `stop_fd`, an eventfd, is readable.  What the kernel refuses of one packet is counted and ends nothing; a
 * descriptor that is dead ends the thread.
 */
#ifndef OVERLAYD_LOOP_H
#define OVERLAYD_LOOP_H

#include "engine.h"

struct loop {
    struct engine *engine;
    int tun_fd, udp_fd, stop_fd; /* the caller's */
    int tx_wake_fd, rx_wake_fd;  /* eventfds of our own: a table waits */
};

/* 0, or an errno. */
int loop_init(struct loop *loop, struct engine *engine, int tun_fd, int udp_fd, int stop_fd);
void loop_destroy(struct loop *loop);

/* Until it is time to stop: 0.  Or an errno: EBUSY if this direction runs already, ENOMEM, or what a dead
 * descriptor said. */
int loop_run_tx(struct loop *loop);
int loop_run_rx(struct loop *loop);

/* As engine_replace; a thread that sleeps is woken for it. */
bool loop_replace(struct loop *loop, const uint8_t *packed, size_t length, char problem[TABLE_PROBLEM]);

#endif
