//! Every failure, over both doors.
