//! Which private IPv4 addresses does this machine have?
//!
//! Consul advertises the only one when a server binds to 0.0.0.0, and refuses to guess among
//! several; so do we.

use std::{net::Ipv4Addr, ptr};

/// The machine's private IPv4 addresses, each once, in the kernel's order.
pub(super) fn private_ipv4() -> Vec<Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = Vec::new();
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `list` is a valid place for the kernel's list, freed below exactly once.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return found;
    }
    let mut next = list;
    while !next.is_null() {
        // SAFETY: `next` is an element of the list, which lives until `freeifaddrs`.
        let (address, following) = unsafe { ((*next).ifa_addr, (*next).ifa_next) };
        next = following;
        // SAFETY: not null, so it points to a socket address of the family that it names.
        if address.is_null() || i32::from(unsafe { (*address).sa_family }) != libc::AF_INET {
            continue;
        }
        // SAFETY: the family is AF_INET, so it is a `sockaddr_in`.
        let address = unsafe { (*address.cast::<libc::sockaddr_in>()).sin_addr.s_addr };
        let ip = Ipv4Addr::from(u32::from_be(address));
        if ip.is_private() && !found.contains(&ip) {
            found.push(ip);
        }
    }
    // SAFETY: the list that `getifaddrs` made, and no pointer into it is used any more.
    unsafe { libc::freeifaddrs(list) };
    found
}
