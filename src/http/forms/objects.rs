//! Deserializes structs from JSON objects only. Serde by itself also takes an array, with the fields in their order. Unknown
//! members are skipped, so that they need no memory.

use serde::{
    Deserializer,
    de::{DeserializeSeed, IntoDeserializer, MapAccess, Visitor},
    forward_to_deserialize_any,
};

/// Implements `Deserialize` for structs that derive it with `#[serde(remote = "Self")]`.
macro_rules! objects {
    ($($name:ident),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize($crate::http::forms::objects::ObjectOnly(deserializer))
            }
        }
    )*};
}
pub(in crate::http) use objects;

/// Requests a map where a struct is expected.
pub(in crate::http) struct ObjectOnly<D>(pub(in crate::http) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectOnly<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Takes the members of an object that the struct lacks.
pub(in crate::http) trait TakeMember {
    /// Reads the value of a member.
    fn take<'de, A: MapAccess<'de>>(&mut self, name: String, map: &mut A) -> Result<(), A::Error>;
}

/// Like [`ObjectOnly`], and passes the unknown members to `others`.
pub(in crate::http) struct WithOthers<'a, D, T> {
    pub(in crate::http) deserializer: D,
    pub(in crate::http) others: &'a mut T,
}

impl<'de, D: Deserializer<'de>, T: TakeMember> Deserializer<'de> for WithOthers<'_, D, T> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_map(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_map(Known { inner: visitor, fields, others: self.others })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Passes only the known members to `inner`, a visitor or its map.
struct Known<'a, I, T> {
    inner: I,
    fields: &'static [&'static str],
    others: &'a mut T,
}

impl<'de, V: Visitor<'de>, T: TakeMember> Visitor<'de> for Known<'_, V, T> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Known { inner: map, fields: self.fields, others: self.others })
    }
}

impl<'de, A: MapAccess<'de>, T: TakeMember> MapAccess<'de> for Known<'_, A, T> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.inner.next_key::<String>()? {
            if self.fields.contains(&name.as_str()) {
                return seed.deserialize(name.into_deserializer()).map(Some);
            }
            self.others.take(name, &mut self.inner)?;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}
